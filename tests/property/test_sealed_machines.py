"""A machine that booted a sealed image stays sealed, whatever its updates offer.

The commands are the real ones. Only a command with ``--allow-weaker`` may change what the machine
demands of an image.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootc.deploy import sealing, upgrade
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.host.session import HostSession
from bootc.deploy.upgrade import UpdateOptions
from bootc.errors import Error
from bootc.formats.origin import BootType
from support import osimages
from support.bootdirs import SYSTEMD_UKI
from support.examples import of_machine
from support.machine import FakeMachine, Journal
from support.osimages import Channel, Images, OsImage
from support.stored import IN_MEMORY

#: What is offered: the kind of images, and the image of this kind.
SEALED, OPTIONAL, BARE = "sealed", "optional", "bare"
OFFERS = (
    (SEALED, osimages.OLD),
    (SEALED, osimages.NEW),
    (OPTIONAL, osimages.TURNED),
    (OPTIONAL, osimages.NEW),
    (BARE, osimages.RENAMED),
)
COMMANDS = ("switch", "switch", "switch", "upgrade", "release", "cancel")
#: The step that has the option; mostly none.
ALLOWED_AT = (None, None, None, 0, 3)


class Offers:
    """The images of all kinds, made once."""

    def __init__(self, path: Path) -> None:
        self.images = {
            SEALED: Images(path / "sealed", BootType.UKI, strict=True),
            OPTIONAL: Images(path / "optional", BootType.UKI),
            BARE: Images(path / "bare", BootType.BLS),
        }

    def kind_of(self, kernel: bytes) -> str:
        """Return the kind of a kernel on the boot partition."""
        found = {
            kind
            for kind, images in self.images.items()
            for files in images.kernels.values()
            if files[0] == kernel
        }
        (kind,) = found
        return kind


class Unchecked(FakeMachine):
    """A machine whose images of several kinds may have one id."""

    def check_bootable(self, shown: object) -> None:
        pass


@pytest.fixture(scope="module")
def offers() -> Iterator[Offers]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Offers(Path(path))


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(COMMANDS), st.sampled_from(OFFERS), st.booleans(), st.booleans()),
        min_size=3,
        max_size=8,
    ),
    allowed_at=st.sampled_from(ALLOWED_AT),
)
@of_machine(100)
def test_a_sealed_machine_becomes_weaker_only_by_name(
    offers: Offers,
    steps: list[tuple[str, tuple[str, OsImage], bool, bool]],
    allowed_at: int | None,
) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path, pytest.MonkeyPatch.context() as patch:
        # The machine's file system need not have fs-verity.
        patch.setattr(sealing, "find_without_verity", lambda *rest: None)
        root = Path(path)
        channels = {
            kind: Channel(root / kind, images, osimages.OLD)
            for kind, images in offers.images.items()
        }
        machine = Unchecked(root / "machine", SYSTEMD_UKI, offers.images[SEALED])
        machine.install(channels[SEALED])
        named = False
        for number, (command, (kind, image), locked, reboots) in enumerate(steps):
            channels[kind].offer(image)
            allow = number == allowed_at
            named = named or allow
            options = UpdateOptions(download_only=locked, allow_weaker=allow)
            with contextlib.suppress(Error):
                run(machine, command, channels[kind], options)
            if reboots:
                machine.reboot()
            booted = offers.kind_of(machine.menu()[0].files[0].read_bytes())
            assert named or booted == SEALED


def run(machine: FakeMachine, command: str, channel: Channel, options: UpdateOptions) -> None:
    def switch(system: HostSession, journal: Journal) -> object:
        return upgrade.switch(system, ImageSpec(channel.reference), options, journal)

    match command:
        case "switch":
            machine.command(switch)
        case "upgrade":
            machine.command(lambda system, journal: upgrade.upgrade(system, options, journal))
        case "release":
            machine.command(lambda system, journal: upgrade.release(system, options, journal))
        case _:
            machine.command(upgrade.cancel)
