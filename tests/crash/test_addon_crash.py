"""Whenever the power fails while an add-on is added or removed: the machine boots as before or as
wanted, on each of its ESPs.

For every n a command dies at its n-th change. Then each deployment has all of the add-ons that it
had, or those that it shall have. The same command once more ends where it would have ended.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot.scheme import Scheme
from bootc.deploy import addons, cleanup
from bootc.deploy import upgrade as updates
from bootc.deploy.host.session import HostSession
from bootc.deploy.upgrade import UpdateOptions
from bootc.errors import Error
from support import osimages
from support.addons import KEYMAP, LUKS, NAME
from support.bootdirs import GRUB_UKI, NONE_UKI, SYSTEMD_UKI, scheme_name
from support.failing import dies
from support.machine import Command, FakeMachine, Journal
from support.osimages import Channel, Images
from support.stored import IN_MEMORY

#: More changes than any command makes.
LIMIT = 300
ESPS = ("esp", "esp2")
OTHER = "luks.addon.efi"


class Bench:
    """A machine that runs NEW with an add-on, and can go back to OLD."""

    def __init__(self, scheme: Scheme, top: Path) -> None:
        images = Images(top / "images", scheme.boot_type)
        self.channel = Channel(top / "channel", images, osimages.OLD)
        self.machine = FakeMachine(top / "machine", scheme, images, ESPS)
        self.machine.install(self.channel)
        self.channel.offer(osimages.NEW)
        self.machine.command(upgrade)
        assert self.machine.reboot() is None
        self.paths = {}
        for name, data in ((NAME, KEYMAP), (OTHER, LUKS)):
            path = top / name
            path.write_bytes(data)
            self.paths[name] = str(path)
        self.machine.command(lambda system, sink: self.add(system, sink, OTHER))

    def add(
        self, system: HostSession, journal: Journal, name: str = NAME, *, for_all: bool = False
    ) -> None:
        addons.add_addons(system, [self.paths[name]], journal, for_all=for_all)

    def add_global(self, system: HostSession, journal: Journal) -> None:
        self.add(system, journal, for_all=True)

    def remove(self, system: HostSession, journal: Journal) -> None:
        addons.remove_addon(system, OTHER, journal)


@pytest.fixture(scope="module", params=[SYSTEMD_UKI, GRUB_UKI, NONE_UKI], ids=scheme_name)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as top:
        yield Bench(request.param, Path(top))


def upgrade(system: HostSession, journal: Journal) -> object:
    return updates.upgrade(system, UpdateOptions(), journal)


def cuts(bench: Bench, where: Path, command: Command) -> Iterator[FakeMachine]:
    """Yield machines whose power failed at the first, the second … change of a command."""
    for number in range(1, LIMIT):
        machine = bench.machine.copy(where / str(number))
        if not dies(number, machine.unattended(command)):
            assert number > 3
            return
        yield machine
        shutil.rmtree(machine.path)
    pytest.fail(f"still not done after {LIMIT} changes")


def applied(machine: FakeMachine, esp: str) -> set[tuple[str, bytes]]:
    """Return what the stub applies to NEW: the name and the content of each add-on."""
    top = machine.path / esp
    program = f"EFI/Linux/bootc/bootc_composefs-{machine.images.ids['new']}.efi"
    homes = (top / f"{program}.extra.d", top / "loader/addons")
    return {
        (path.name, path.read_bytes())
        for home in homes
        if home.is_dir()
        for path in home.iterdir()
        if path.name.endswith(".addon.efi") and not path.name.startswith(".")
    }


@pytest.mark.parametrize("command", ["add", "add_global", "remove"])
def test_an_addon_is_there_or_not(bench: Bench, where: Path, command: str) -> None:
    before = {(OTHER, LUKS)}
    after = set() if command == "remove" else {(OTHER, LUKS), (NAME, KEYMAP)}
    work: Command = getattr(bench, command)
    seen = set()
    for machine in cuts(bench, where, work):
        for esp in ESPS:
            found = applied(machine, esp)
            assert found in (before, after)
            seen.add((esp, found == after))
            boots = machine.started_from(esp)
            for shown in boots.menu():
                boots.check_bootable(shown)
        machine.start()
        with contextlib.suppress(Error):
            machine.command(work)
        machine.command(cleanup.collect_garbage)
        for esp in ESPS:
            assert applied(machine, esp) == after
            left = [p for p in (machine.path / esp).rglob(".tmp-file-*addon*") if p.is_file()]
            assert left == []
        assert machine.status()["status"].get("findings", []) == []
    assert seen == {(esp, done) for esp in ESPS for done in (False, True)}


@pytest.mark.parametrize("bench", [SYSTEMD_UKI], indirect=True, ids=scheme_name)
def test_an_update_carries_it_over_whenever_the_power_fails(bench: Bench, where: Path) -> None:
    bench.channel.offer(osimages.TURNED)
    turned = bench.channel.image_id
    states = set()
    for machine in cuts(bench, where, upgrade):
        assert applied(machine, "esp") == {(OTHER, LUKS)}
        state = tuple(sorted(path.name for path in machine.esp.rglob("*")))
        if state in states:
            continue
        states.add(state)
        machine.start()
        machine.command(upgrade)
        assert machine.reboot() is None
        assert machine.booted_id == turned
        home = machine.esp / f"EFI/Linux/bootc/bootc_composefs-{turned}.efi.extra.d"
        assert {p.name: p.read_bytes() for p in home.iterdir()} == {OTHER: LUKS}
    assert len(states) > 5
