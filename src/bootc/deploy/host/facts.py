"""The facts of an installed system, as values. All decisions are made from them.

:mod:`bootc.deploy.host.gather` reads the system; code that uses facts reads nothing. The status
(:mod:`bootc.deploy.host.status`) and every plan are functions of :class:`Facts`, so a test can
write down any state of a machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bootc.boot.findings import Finding
from bootc.boot.menu_read import Item, Menu
from bootc.boot.scheme import Scheme
from bootc.boot.secure_boot import BootPrograms
from bootc.deploy.host.boot_state import BootedState
from bootc.deploy.host.model import ImageStatus, Timestamp
from bootc.deploy.host.notes import CleanupFailure, FinalizeFailure
from bootc.formats import cmdline
from bootc.formats.cmdline import ComposefsImages
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.origin import Origin

if TYPE_CHECKING:
    from bootc.formats.security_version import SecurityVersion


@dataclass(frozen=True, slots=True)
class StateFacts:
    """The state directory of a deployment.

    Without ``origin`` it is damaged, or an interruption left it; a finding tells.
    """

    image_id: Digest
    origin: Origin | None
    pinned: bool = False
    failure: FinalizeFailure | None = None
    #: The image, if an old bootc recorded it beside an origin that names no manifest.
    legacy_image: ImageStatus | None = None


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The facts in the documents of an image in the repository."""

    architecture: str
    version: str | None = None
    timestamp: Timestamp | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """A system that was booted through composefs.

    Attributes:
        booted: How the system was booted.
        scheme: The place and form of this system's boot menu.
        active: The menu that the boot loader reads.
        staged: The menu that finalizing exchanges with the active one.
        states: State directories, by deployment.
        images: The facts of images, by manifest, if their documents can be read.
        ukis: For each deployment with a readable unified kernel image in a menu: the images that
            this names, and whether it tolerates missing fs-verity.
        versions: For each of these deployments: the security version that the image states.
        counter: The security version that the counter in the TPM requires; None if there is no
            counter, or if the booted deployment demands none.
        programs: The EFI programs that start the booted deployment, if they can be read.
        filesystem: The type of the file system of the physical root; empty if unknown.
        cached_update: The image that the last check for updates since the boot found.
        leftovers: Names of state directories that are being removed.
        illegible_states: Deployments whose state directory is a file or cannot be read.
        cleanup_failures: Garbage that the last clean-up could not remove.
        mirrors: How further ESPs differ from the main one.
        read_only: The disk refuses writes.
        findings: Damaged, foreign or unreadable things. None of them stops a command.
    """

    booted: BootedState
    scheme: Scheme
    active: Menu
    staged: Menu
    states: Mapping[Digest, StateFacts]
    images: Mapping[OciDigest, ImageFacts] = field(default_factory=dict)
    ukis: Mapping[Digest, ComposefsImages] = field(default_factory=dict)
    versions: Mapping[Digest, SecurityVersion] = field(default_factory=dict)
    counter: int | None = None
    programs: BootPrograms | None = None
    filesystem: str = ""
    cached_update: ImageStatus | None = None
    leftovers: tuple[str, ...] = ()
    illegible_states: frozenset[Digest] = frozenset()
    cleanup_failures: tuple[CleanupFailure, ...] = ()
    mirrors: tuple[Finding, ...] = ()
    read_only: bool = False
    findings: tuple[Finding, ...] = ()

    def staged_id(self) -> Digest | None:
        """Return the staged deployment, if it can boot next.

        After a soft reboot the announcement remains and names the running deployment. A
        deployment without state, or without an entry in the staged menu, cannot boot next,
        unless the menus have been exchanged already.
        """
        marker = self.booted.staged
        if marker is None or marker.image_id == self.booted.image_id:
            return None
        announced = marker.image_id
        if self.staged_item(announced) is None and not self.is_finalized(announced):
            return None
        return None if self.origin(announced) is None else announced

    def is_finalized(self, announced: Digest) -> bool:
        """Tell whether the live menu already has the announced deployment first.

        Any staged menu is then a remainder of the previous menu.
        """
        return _starts(self.active, announced) and not _starts(self.staged, announced)

    def unannounced_id(self) -> Digest | None:
        """Return the deployment that is completely prepared and will not boot next.

        The machine went down before it was finalized and could not record why, or its
        preparation was interrupted before the announcement. It is kept until it is staged again,
        or until the next clean-up.

        A menu that was prepared on the running system always has the booted deployment. A menu
        without it is older: an interrupted deletion left it under the name of the staged menu.
        """
        first = _first(self.staged)
        if first is None or first in (self.booted.image_id, self.staged_id()):
            return None
        if self.staged_item(self.booted.image_id) is None:
            return None
        state = self.states.get(first)
        if state is None or state.origin is None or state.failure is not None:
            return None
        return None if self.active_item(first) else first

    def origin(self, deployment: Digest) -> Origin | None:
        """Return the origin of a deployment, or None if it is not known."""
        state = self.states.get(deployment)
        return None if state is None else state.origin

    def is_pinned(self, deployment: Digest) -> bool:
        """Tell whether the user wants a deployment kept."""
        state = self.states.get(deployment)
        return state is not None and state.pinned

    def active_item(self, deployment: Digest) -> Item | None:
        """Return the entry that starts a deployment, if there is one."""
        return _find(self.active, deployment)

    def staged_item(self, deployment: Digest) -> Item | None:
        """Return the entry of the staged menu that starts a deployment, if there is one."""
        return _find(self.staged, deployment)

    def images_of(self, deployment: Digest) -> tuple[Digest, ...]:
        """Return the images that a deployment may boot: its id, and what its arguments name."""
        found = {deployment: None}
        for item in (*self.active.items, *self.staged.items):
            if item.deployment == deployment:
                found |= dict.fromkeys(item.also)
        if deployment in self.ukis:
            found |= dict.fromkeys(map(Digest.from_hex, self.ukis[deployment].hexes))
        if deployment == self.booted.image_id:
            found |= dict.fromkeys(self.booted.also)
        return tuple(found)

    def booted_sealed(self) -> bool:
        """Tell whether the system was booted from a sealed unified kernel image."""
        return self.scheme.boot_type.is_unified and not self.booted.missing_verity_allowed

    def version(self, deployment: Digest) -> SecurityVersion | None:
        """Return the security version of a deployment; None if it has no readable UKI.

        That of the booted deployment is the one it was booted with, add-ons included.
        """
        if deployment == self.booted.image_id and self.scheme.boot_type.is_unified:
            # Imported here: machines without UKIs do not need it.
            from bootc.formats import security_version

            return security_version.stated(cmdline.parse(self.booted.cmdline))
        return self.versions.get(deployment)

    def bootable(self) -> list[Digest]:
        """Return the deployments of the active menu that have state, in its order."""
        return [item.deployment for item in self.active.items if self.origin(item.deployment)]


def _first(menu: Menu) -> Digest | None:
    return menu.items[0].deployment if menu.items else None


def _starts(menu: Menu, deployment: Digest) -> bool:
    return any(item.boots(deployment) for item in menu.items[:1])


def _find(menu: Menu, deployment: Digest) -> Item | None:
    return next((item for item in menu.items if item.deployment == deployment), None)
