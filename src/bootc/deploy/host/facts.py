"""What is found on an installed system, as values: all that decisions are made from.

Gathering reads (:mod:`bootc.deploy.host.gather`); from here on nothing does. Status
(:mod:`bootc.deploy.host.status`) and every plan are functions of a :class:`Facts`, so that
whatever state a machine can be in can be written down in a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bootc.boot.findings import Finding
from bootc.boot.menu_read import Item, Menu
from bootc.boot.scheme import Scheme
from bootc.deploy.host.boot_state import BootedState
from bootc.deploy.host.model import ImageStatus, Timestamp
from bootc.deploy.host.notes import CleanupFailure, FinalizeFailure
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.origin import Origin


@dataclass(frozen=True, slots=True)
class StateFacts:
    """The state directory of a deployment.

    Without ``origin`` it is damaged, or what an interruption left; a finding says which.
    """

    image_id: Digest
    origin: Origin | None
    pinned: bool = False
    failure: FinalizeFailure | None = None
    #: The image, where an old bootc has put it beside an origin that names no manifest.
    legacy_image: ImageStatus | None = None


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the documents of an image in the repository say."""

    architecture: str
    version: str | None = None
    timestamp: Timestamp | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """A system that was booted through composefs.

    Attributes:
        booted: What volatile state says.
        scheme: Where and how this system's boot menu is kept.
        active: The menu the boot loader reads.
        staged: The menu that finalizing exchanges with it.
        states: State directories, by deployment.
        images: Documents of those images whose documents can be read, by manifest.
        ukis: Whether unified kernel images of the menus tolerate missing fs-verity, by
            deployment; those that can be read.
        cached_update: What the last look at the registry since the boot found.
        leftovers: Names of state directories that are being removed.
        illegible_states: Deployments that something stands for which is no state directory, or
            cannot be read.
        cleanup_failures: What the last clean-up could not remove.
        read_only: The disk refuses writes.
        findings: What was found damaged, foreign or unreadable. None of it stops a command.
    """

    booted: BootedState
    scheme: Scheme
    active: Menu
    staged: Menu
    states: Mapping[Digest, StateFacts]
    images: Mapping[OciDigest, ImageFacts] = field(default_factory=dict)
    ukis: Mapping[Digest, bool] = field(default_factory=dict)
    cached_update: ImageStatus | None = None
    leftovers: tuple[str, ...] = ()
    illegible_states: frozenset[Digest] = frozenset()
    cleanup_failures: tuple[CleanupFailure, ...] = ()
    read_only: bool = False
    findings: tuple[Finding, ...] = ()

    def staged_id(self) -> Digest | None:
        """Return the deployment that is announced for the next boot, if it can become that.

        After a soft reboot the announcement stays and names what runs. Without state, or without
        an entry in the staged menu, nothing would become of it, unless the menus have been
        exchanged already.
        """
        marker = self.booted.staged
        if marker is None or marker.image_id == self.booted.image_id:
            return None
        announced = marker.image_id
        if self.staged_item(announced) is None and not self.is_finalized(announced):
            return None
        return None if self.origin(announced) is None else announced

    def is_finalized(self, announced: Digest) -> bool:
        """Tell whether the live menu has an announced deployment first already.

        The staged menu is another one then: what is left of the menu of before, if anything.
        """
        return _first(self.active) == announced and _first(self.staged) != announced

    def unannounced_id(self) -> Digest | None:
        """Return the deployment that is prepared to its end, and will not boot all the same.

        The machine went down before it was finalized, without being able to say why, or preparing
        it was interrupted before the announcement. It is left until it is staged again, or the
        next clean-up.

        What runs stays in every menu that is prepared on it. The menu of before, which has the
        name of the staged one where deleting it was interrupted, is from before what runs.
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
        """Return what is known of where a deployment came from."""
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
        """Return the entry that shall start a deployment, if there is one."""
        return _find(self.staged, deployment)

    def bootable(self) -> list[Digest]:
        """Return the deployments of the active menu that have state, in its order."""
        return [item.deployment for item in self.active.items if self.origin(item.deployment)]


def _first(menu: Menu) -> Digest | None:
    return menu.items[0].deployment if menu.items else None


def _find(menu: Menu, deployment: Digest) -> Item | None:
    return next((item for item in menu.items if item.deployment == deployment), None)
