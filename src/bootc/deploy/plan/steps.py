"""Plans: what a command will do, as a list that can be printed, tested, and carried out.

A plan is made by a pure function of :class:`~bootc.deploy.host.facts.Facts` and a request,
and :mod:`bootc.deploy.execute` carries it out; nothing else changes a system. The plan takes
effect with its step ``commit``. A command that is interrupted before it has changed nothing,
and can be repeated. After it only clean-up is left, which every later command does as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from bootc.boot.menu_compose import NewItem
from bootc.boot.menu_read import Item
from bootc.boot.publish import Artifact
from bootc.deploy.etc.merge import Merge
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.origin import Origin
from bootc.sizes import exact_size


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Announce nothing for the next boot any more."""

    def __str__(self) -> str:
        return "withdraw what is announced for the next boot"


@dataclass(frozen=True, slots=True)
class DiscardStagedMenu:
    """Remove the staged menu, whoever left it."""

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
    """Make the place of a deployment's state free, whatever is in it."""

    deployment: Digest

    def __str__(self) -> str:
        return f"move the old state of deployment {self.deployment} aside"


@dataclass(frozen=True, slots=True)
class RemoveLeftover:
    """Remove what is left of the state of a deployment. ``name`` is that of the directory."""

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
    """Write the kernel of the new image to where the boot loader finds it."""

    deployment: Digest
    size_bytes: int

    def __str__(self) -> str:
        return f"write the kernel of deployment {self.deployment} ({exact_size(self.size_bytes)})"


@dataclass(frozen=True, slots=True)
class CreateState:
    """Make the state directory of the new image, its ``/etc`` as the image has it."""

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
    """See to it that the shutdown finalizes what is announced."""

    def __str__(self) -> str:
        return "have the shutdown finalize it"


@dataclass(frozen=True, slots=True)
class Announce:
    """Say that a deployment shall be the next to boot, or with ``locked`` that it could be."""

    deployment: Digest
    locked: bool

    def __str__(self) -> str:
        when = "when asked to" if self.locked else "next"
        return f"announce deployment {self.deployment}, to boot {when}"


@dataclass(frozen=True, slots=True)
class ReplaceEtc:
    """Give a deployment the ``/etc`` that a merge resulted in."""

    deployment: Digest
    merge: Merge

    def __str__(self) -> str:
        count = len(self.merge.changes)
        changes = f"{count} local {'change' if count == 1 else 'changes'}"
        return f"give deployment {self.deployment} the merged /etc ({changes})"


@dataclass(frozen=True, slots=True)
class ExchangeMenu:
    """Let the staged menu, which boots ``first`` by default, take the place of the live one."""

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
class RecordOrigin:
    """Replace what is recorded of where a deployment came from."""

    deployment: Digest
    origin: Origin

    def __str__(self) -> str:
        return f"record that deployment {self.deployment} is {self.origin.image}"


@dataclass(frozen=True, slots=True)
class SetPin:
    """Keep a deployment whatever happens, or no longer."""

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
    """Keep an image no longer. ``name`` is that of the reference."""

    name: str

    def __str__(self) -> str:
        return f"no longer keep image {self.name}"


@dataclass(frozen=True, slots=True)
class CollectObjects:
    """Remove from the repository what nothing refers to.

    Attributes:
        roots: Images to keep.
        manifests: OCI images to keep, which have tags unless these could not be set.
    """

    roots: tuple[Digest, ...]
    manifests: tuple[OciDigest, ...] = ()

    def __str__(self) -> str:
        return "collect what nothing refers to from the repository"


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
    | RecordOrigin
    | SetPin
    | SetTag
    | RemoveTag
    | CollectObjects
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a command does.

    Attributes:
        before: Steps that prepare it. One that fails ends the plan, and nothing has changed.
        commit: The step with which the command takes effect; None where there is only clean-up.
        after: Steps that clean up. All of them are tried.
        notes: What the user should know beside it, a line each.
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
        """Return the plan for people: a line each step, the commit point marked."""
        return [
            *(f"  {step}" for step in self.before),
            *(() if self.commit is None else (f"* {self.commit}",)),
            *(f"  {step}" for step in self.after),
        ]
