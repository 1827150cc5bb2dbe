"""Plans: the steps of a command, as values that can be printed, tested and executed.

A pure function makes a plan from :class:`~bootc.deploy.host.facts.Facts` and a request, and
:mod:`bootc.deploy.execute` carries it out; nothing else changes a system. A plan takes effect
with its step ``commit``. A command that is interrupted before that step has changed nothing
that boots, and can be repeated. After that step only clean-up is left, which every later
command does as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from bootc.boot.artifacts import Artifact
from bootc.boot.menu_compose import NewItem
from bootc.boot.menu_read import Item
from bootc.deploy.etc.merge import Merge
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.origin import Origin
from bootc.sizes import exact_size


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Remove the announcement of the staged deployment."""

    def __str__(self) -> str:
        return "withdraw the announcement of the staged deployment"


@dataclass(frozen=True, slots=True)
class DiscardStagedMenu:
    """Remove the staged menu, also one that another program wrote."""

    def __str__(self) -> str:
        return "remove the staged menu"


@dataclass(frozen=True, slots=True)
class RemoveState:
    """Remove the state directory of a deployment, its ``/etc`` with it."""

    deployment: Digest

    def __str__(self) -> str:
        return f"remove the state of deployment {self.deployment}"


@dataclass(frozen=True, slots=True)
class SetStateAside:
    """Rename the existing state directory of a deployment, so that a new one can be made."""

    deployment: Digest

    def __str__(self) -> str:
        return f"move the old state of deployment {self.deployment} aside"


@dataclass(frozen=True, slots=True)
class RemoveLeftover:
    """Remove a renamed state directory. ``name`` is the name of the directory."""

    name: str

    def __str__(self) -> str:
        return f"remove the left-over state {self.name}"


@dataclass(frozen=True, slots=True)
class RemoveArtifact:
    """Remove a kernel that no deployment needs."""

    artifact: Artifact

    def __str__(self) -> str:
        size = exact_size(self.artifact.size_bytes)
        return f"remove the unused kernel {self.artifact.name} ({size})"


@dataclass(frozen=True, slots=True)
class WriteKernel:
    """Write the kernel of the new image to the boot partition."""

    deployment: Digest
    size_bytes: int

    def __str__(self) -> str:
        return f"write the kernel of deployment {self.deployment} ({exact_size(self.size_bytes)})"


@dataclass(frozen=True, slots=True)
class CreateState:
    """Create the state directory of the new image, with the image's own ``/etc``."""

    deployment: Digest
    origin: Origin

    def __str__(self) -> str:
        return f"make the state of deployment {self.deployment}"


@dataclass(frozen=True, slots=True)
class WriteStagedMenu:
    """Write a complete menu beside the live one; the first entry will boot by default."""

    order: tuple[NewItem | Item, ...]

    def __str__(self) -> str:
        return f"write the staged menu: {', '.join(str(item.deployment) for item in self.order)}"


@dataclass(frozen=True, slots=True)
class StartFinalizer:
    """Start the service that finalizes the staged deployment at shutdown."""

    def __str__(self) -> str:
        return "start the service that finalizes it at shutdown"


@dataclass(frozen=True, slots=True)
class Announce:
    """Announce the staged deployment: it boots next, or with ``locked`` after its release."""

    deployment: Digest
    locked: bool

    def __str__(self) -> str:
        when = "when asked to" if self.locked else "next"
        return f"announce deployment {self.deployment}, to boot {when}"


@dataclass(frozen=True, slots=True)
class ReplaceEtc:
    """Replace the ``/etc`` of a deployment by the result of a merge."""

    deployment: Digest
    merge: Merge

    def __str__(self) -> str:
        count = len(self.merge.changes)
        changes = f"{count} local {'change' if count == 1 else 'changes'}"
        return f"give deployment {self.deployment} the merged /etc ({changes})"


@dataclass(frozen=True, slots=True)
class ExchangeMenu:
    """Exchange the staged menu, whose default is ``first``, with the live one."""

    first: Digest

    def __str__(self) -> str:
        return "exchange the staged menu with the live one"


@dataclass(frozen=True, slots=True)
class RemoveEntry:
    """Remove one entry of the live menu, which is not the first."""

    item: Item

    def __str__(self) -> str:
        return f"remove the boot entry {self.item.name}"


@dataclass(frozen=True, slots=True)
class RemoveRecounted:
    """Remove the second name of a live entry, which has an older boot counter."""

    name: str

    def __str__(self) -> str:
        return f"remove the repeated boot entry {self.name}"


@dataclass(frozen=True, slots=True)
class RefreshMenu:
    """Bring what depends on the live menu to its state, if another program changed it."""

    def __str__(self) -> str:
        return "compare the boot menu with the firmware"


@dataclass(frozen=True, slots=True)
class SynchroniseMirrors:
    """Bring the further ESPs to the state of the main one."""

    def __str__(self) -> str:
        return "bring the further EFI system partitions up to date"


@dataclass(frozen=True, slots=True)
class WriteAddons:
    """Write add-ons of the administrator, each with one rename.

    Attributes:
        artifact: The unified kernel image that gets them; None if all get them.
        home: Their directory on the boot partition.
        files: The name and the content of each.
    """

    artifact: Digest | None
    home: str
    files: tuple[tuple[str, bytes], ...]

    def __str__(self) -> str:
        return f"write to {self.home}: {', '.join(name for name, _ in self.files)}"


@dataclass(frozen=True, slots=True)
class RemoveAddon:
    """Remove an add-on. ``path`` is its path on the boot partition."""

    path: str

    def __str__(self) -> str:
        return f"remove {self.path}"


@dataclass(frozen=True, slots=True)
class RecordOrigin:
    """Replace the recorded origin of a deployment."""

    deployment: Digest
    origin: Origin

    def __str__(self) -> str:
        return f"record that deployment {self.deployment} is {self.origin.image}"


@dataclass(frozen=True, slots=True)
class SetPin:
    """Pin or unpin a deployment."""

    deployment: Digest
    pinned: bool

    def __str__(self) -> str:
        return f"{'pin' if self.pinned else 'unpin'} deployment {self.deployment}"


@dataclass(frozen=True, slots=True)
class SetTag:
    """Keep an image's layers and documents in the repository."""

    manifest: OciDigest

    def __str__(self) -> str:
        return f"keep image {self.manifest}"


@dataclass(frozen=True, slots=True)
class RemoveTag:
    """Stop keeping an image. ``name`` is the name of its reference."""

    name: str

    def __str__(self) -> str:
        return f"no longer keep image {self.name}"


@dataclass(frozen=True, slots=True)
class CollectObjects:
    """Remove everything from the repository that no reference leads to.

    Attributes:
        roots: Images to keep.
        manifests: OCI images to keep. They have tags, unless a tag could not be set.
    """

    roots: tuple[Digest, ...]
    manifests: tuple[OciDigest, ...] = ()

    def __str__(self) -> str:
        return "collect garbage in the repository"


Step = (
    Withdraw
    | DiscardStagedMenu
    | RemoveState
    | SetStateAside
    | RemoveLeftover
    | RemoveArtifact
    | WriteKernel
    | CreateState
    | WriteStagedMenu
    | StartFinalizer
    | Announce
    | ReplaceEtc
    | ExchangeMenu
    | RemoveEntry
    | RemoveRecounted
    | RefreshMenu
    | SynchroniseMirrors
    | WriteAddons
    | RemoveAddon
    | RecordOrigin
    | SetPin
    | SetTag
    | RemoveTag
    | CollectObjects
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps of a command.

    Attributes:
        before: Steps that prepare it. If one fails, the plan ends and the old system boots.
        commit: The step with which the command takes effect; None if there is only clean-up.
        after: Steps that clean up. All of them are tried.
        notes: Messages for the user, one line each.
    """

    before: tuple[Step, ...] = ()
    commit: Step | None = None
    after: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[Step, ...]:
        """All steps in order."""
        return (*self.before, *(() if self.commit is None else (self.commit,)), *self.after)

    def lines(self) -> list[str]:
        """Return the plan as text: one line for each step, with the commit point marked."""
        return [
            *(f"  {step}" for step in self.before),
            *(() if self.commit is None else (f"* {self.commit}",)),
            *(f"  {step}" for step in self.after),
        ]
