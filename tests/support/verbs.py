"""The commands that change a machine, as its user gives them."""

from __future__ import annotations

import configparser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bootc.deploy import cleanup, rollback, upgrade
from bootc.deploy.etc.merge import ConflictPolicy
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.host.session import HostSession
from bootc.deploy.upgrade import UpdateOptions
from support.machine import FakeMachine, Journal
from support.osimages import Channel

#: How many :meth:`Verbs.any` chooses from.
CHOICES = 15


@dataclass(frozen=True, slots=True)
class Verb:
    """A command to be run with or without being dry.

    Attributes:
        name: Of the command.
        run: Runs it; the last argument says whether it shall be dry.
        target: The image id that must boot next when an unlocked update returns true.
        toggles: Running it twice is as if it had never been.
    """

    name: str
    run: Callable[[HostSession, Journal, bool], object]
    target: str | None = None
    toggles: bool = False


class Verbs:
    """The commands of one machine, whose updates come from one of the channels."""

    def __init__(self, machine: FakeMachine, channels: Sequence[Channel]) -> None:
        self.machine = machine
        self.channels = channels

    def any(self, choice: int, who: str, policy: ConflictPolicy) -> Verb:
        """Return any of them."""
        if choice < 3:
            return self.upgrade(choice == 2, policy)
        if choice < 5:
            return self.switch(False, policy, choice % 2, False)
        return self.other(choice - 5, who)

    def upgrade(self, locked: bool, policy: ConflictPolicy) -> Verb:
        """Return the upgrade to what is offered."""

        def run(system: HostSession, journal: Journal, dry_run: bool) -> bool:
            options = UpdateOptions(download_only=locked, dry_run=dry_run, etc_conflict=policy)
            return upgrade.upgrade(system, options, journal)

        return Verb("upgrade", run, None if locked else self.wanted().image_id)

    def switch(self, locked: bool, policy: ConflictPolicy, which: int, retain: bool) -> Verb:
        """Return the switch to a channel."""
        channel = self.channels[which]

        def run(system: HostSession, journal: Journal, dry_run: bool) -> bool:
            options = UpdateOptions(download_only=locked, dry_run=dry_run, etc_conflict=policy)
            target = ImageSpec(channel.reference)
            return upgrade.switch(system, target, options, journal, retain=retain)

        name = f"pin {self.machine.booted_id}" if retain else "switch"
        # Switching to where updates come from already is no look for updates.
        sure = not locked and channel is not self.wanted()
        return Verb(name, run, channel.image_id if sure else None)

    def other(self, choice: int, who: str) -> Verb:
        """Return a command about the deployment that is called so, or about all."""
        image_id = self.called(who)

        def verb(name: str, command: Callable[..., object], **more: object) -> Verb:
            def run(system: HostSession, journal: Journal, dry_run: bool) -> object:
                return command(system, journal, dry_run=dry_run, **more)

            return Verb(name, run, toggles=name == "rollback")

        match choice:
            case 0 | 1:
                return verb("rollback", rollback.rollback)
            case 2 | 3:
                return verb(f"delete {image_id}", partial(_delete, image_id))
            case 4:
                return verb("cancel", upgrade.cancel)
            case 5:
                return verb("release", _release)
            case 6:
                return verb("gc", cleanup.collect_garbage)
            case 7:
                return verb(f"unpin {image_id}", partial(_pin, image_id), pinned=False)
            case _:
                return verb(f"pin {image_id}", partial(_pin, image_id), pinned=True)

    def called(self, who: str) -> str:
        """Return the image id of a deployment, or of none if there is none so called."""
        shown = [entry.image_id for entry in self.machine.menu()]
        others = [image_id for image_id in shown if image_id != self.machine.booted_id]
        announced = self.machine.announced()
        found = {
            "booted": [self.machine.booted_id],
            "staged": [announced[0]] if announced else [],
            "rollback": others,
            "pinned": sorted(self.machine.pinned()),
            "last": shown[::-1],
        }
        missing = set(self.machine.images.ids.values()).difference(self.machine.states())
        return next(iter([*found.get(who, []), *sorted(missing), "00" * 64]))

    def wanted(self) -> Channel:
        """Return the channel that updates come from, by what is on record."""
        announced = self.machine.announced()
        for image_id in (announced and announced[0], self.machine.booted_id):
            if image_id and self.machine.state(image_id).exists():
                origin = self.origin(image_id)
                return next(
                    c
                    for c in self.channels
                    if str(c.path) in origin["origin"]["container-image-reference"]
                )
        raise AssertionError("the booted deployment has no state")

    def origin(self, image_id: str) -> configparser.ConfigParser:
        """Return what is on record of a deployment."""
        origin = configparser.ConfigParser(interpolation=None)
        origin.read(self.machine.state(image_id) / f"{image_id}.origin")
        return origin


def _delete(image_id: str, system: HostSession, journal: Journal, *, dry_run: bool) -> None:
    rollback.delete_deployment(system, image_id, journal, dry_run=dry_run)


def _pin(
    image_id: str, system: HostSession, journal: Journal, *, pinned: bool, dry_run: bool
) -> None:
    rollback.set_pin(system, image_id, journal, pinned=pinned, dry_run=dry_run)


def _release(system: HostSession, journal: Journal, *, dry_run: bool) -> None:
    upgrade.release(system, UpdateOptions(dry_run=dry_run), journal)
