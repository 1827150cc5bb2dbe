"""A machine that is updated from one channel, in few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bootc.boot.scheme import Scheme
from bootc.cli.render import update_check
from bootc.deploy import upgrade as updates
from bootc.deploy.check import check_for_update
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.host.session import HostSession
from bootc.deploy.upgrade import UpdateOptions
from bootc.formats.digest import Digest
from bootc.formats.imgref import ImageReference
from support import upstreamdisk
from support.ages import Age
from support.machine import Command, FakeMachine, Journal
from support.osimages import Channel, Images, OsImage


class Bench:
    """A machine, and where its updates come from.

    Args:
        scheme: How it boots.
        top: Where to make it.
        images: The images.
        tags: The image that is installed, and those that it is updated to.
        installer: The age of upstream's program that installs it; ours does if None.
        esps: The names of its ESPs, the main one first.
    """

    def __init__(
        self,
        scheme: Scheme,
        top: Path,
        images: Images,
        *tags: OsImage,
        installer: Age | None = None,
        esps: tuple[str, ...] = ("esp",),
    ) -> None:
        self.images = images
        self.channel = Channel(top / "channel", images, tags[0])
        self.machine = FakeMachine(top / "machine", scheme, images, esps)
        if installer is None:
            self.machine.install(self.channel)
        else:
            upstreamdisk.install(self.machine, self.channel, installer)
        for image in tags[1:]:
            self.update(image)
        self.machine.told.clear()

    def upgrade(self, image: OsImage, **options: Any) -> Journal:
        """Offer an image and upgrade to it."""
        self.channel.offer(image)
        return self.machine.command(upgrade(**options))

    def check(self) -> list[str]:
        """Look for an update, and return the lines that the user sees."""
        with self.machine.open() as system:
            return list(update_check.lines(check_for_update(system)))

    def update(self, image: OsImage) -> None:
        """Upgrade to an image and boot it."""
        self.upgrade(image)
        assert self.machine.reboot() is None
        assert self.machine.booted_id == self.id(image)

    def id(self, image: OsImage) -> str:
        return self.images.ids[image.tag]

    def shown(self) -> list[str]:
        """Return the tags of what the menu boots, having made sure that it does."""
        for shown in self.machine.menu():
            self.machine.check_bootable(shown)
        return [self.images.image(shown.image_id).tag for shown in self.machine.menu()]

    def write(self, path: str, text: str) -> None:
        """Change a file of the running system's ``/etc``."""
        (self.machine.state(self.machine.booted_id) / "etc" / path).write_text(text)

    def findings(self) -> list[str]:
        """Return the texts of what status finds odd."""
        status = self.machine.status()["status"]
        return [finding["text"] for finding in status.get("findings", [])]

    def manifest_of(self, image: OsImage) -> str:
        """Return the digest of the manifest that a deployment is on record with."""
        origin = self.machine.facts().origin(Digest.from_hex(self.id(image)))
        assert origin is not None
        return str(origin.manifest_digest)


def upgrade(**options: Any) -> Command:
    return lambda system, journal: updates.upgrade(system, UpdateOptions(**options), journal)


def switch(target: ImageReference, *, retain: bool = False, **options: Any) -> Command:
    """Return the command that switches to another image."""

    def run(system: HostSession, journal: Journal) -> object:
        spec = ImageSpec(target)
        return updates.switch(system, spec, UpdateOptions(**options), journal, retain=retain)

    return run
