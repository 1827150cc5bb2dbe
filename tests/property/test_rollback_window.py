"""A sealed machine boots nothing below the minimum of what it ran, and nothing below its counter.

The commands are the real ones; the TPM is made up. Only ``--allow-weaker`` goes below the minimum,
and nothing goes below the counter.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootc.deploy import rollback, sealing, upgrade
from bootc.deploy.host.session import HostSession
from bootc.deploy.upgrade import UpdateOptions
from bootc.errors import Error
from bootc.formats import cmdline, security_version
from bootc.formats.origin import BootType
from bootc.formats.security_version import SecurityVersion
from bootc.kernel import tpm
from support import osimages
from support.bootdirs import SYSTEMD_UKI
from support.examples import of_machine
from support.faketpm import FakeTpm
from support.machine import FakeMachine, Journal
from support.osimages import Channel, Images
from support.stored import IN_MEMORY

#: NEW and REBUILT have one tree, and so one kernel. RENAMED states nothing.
VERSIONS = {
    "old": SecurityVersion(1),
    "new": SecurityVersion(3, 2),
    "rebuilt": SecurityVersion(3, 2),
    "turned": SecurityVersion(2, 1),
}
OFFERS = (osimages.NEW, osimages.NEW, osimages.OLD, osimages.TURNED, osimages.RENAMED)
COMMANDS = ("upgrade", "upgrade", "rollback", "rollback", "release", "cancel")
#: Most commands are followed by a boot, and few updates wait.
SELDOM, MOSTLY = st.sampled_from((False, False, False, True)), st.sampled_from((True, True, False))


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    stated = {tag: cmdline.join(version.kargs()) for tag, version in VERSIONS.items()}
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Images(Path(path), BootType.UKI, strict=True, stated=stated)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(COMMANDS), st.sampled_from(OFFERS), SELDOM, MOSTLY),
        min_size=3,
        max_size=8,
    ),
    allowed_at=st.sampled_from((None, None, 0, 2)),
    counter=st.sampled_from((None, 0, 1, 2)),
)
@of_machine(100)
def test_a_machine_stays_in_its_window(
    images: Images,
    steps: list[tuple[str, osimages.OsImage, bool, bool]],
    allowed_at: int | None,
    counter: int | None,
) -> None:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path, pytest.MonkeyPatch.context() as patch:
        # The machine's file system need not have fs-verity.
        patch.setattr(sealing, "find_without_verity", lambda *rest: None)
        chip = FakeTpm() if counter is None else FakeTpm().with_counter(counter)
        patch.setattr(tpm, "open_tpm", lambda **options: chip)
        first = osimages.TURNED if counter == 2 else osimages.OLD
        channel = Channel(Path(path, "channel"), images, first)
        machine = FakeMachine(Path(path, "machine"), SYSTEMD_UKI, images)
        machine.install(channel)
        allowed = False
        for number, (command, image, locked, reboots) in enumerate(steps):
            channel.offer(image)
            allow = number == allowed_at
            allowed = allowed or allow
            with contextlib.suppress(Error):
                run(machine, command, UpdateOptions(download_only=locked, allow_weaker=allow))
            if reboots:
                minimum = version_of(machine).minimum
                machine.reboot()
                booted = version_of(machine).version
                assert allowed or booted >= minimum
                assert booted >= (counter or 0)


def version_of(machine: FakeMachine) -> SecurityVersion:
    return security_version.stated(cmdline.parse(machine.booted.cmdline))


def run(machine: FakeMachine, command: str, options: UpdateOptions) -> None:
    def back(system: HostSession, journal: Journal) -> object:
        return rollback.rollback(system, journal, allow_weaker=options.allow_weaker)

    match command:
        case "upgrade":
            machine.command(lambda system, journal: upgrade.upgrade(system, options, journal))
        case "rollback":
            machine.command(back)
        case "release":
            machine.command(lambda system, journal: upgrade.release(system, options, journal))
        case _:
            machine.command(upgrade.cancel)
