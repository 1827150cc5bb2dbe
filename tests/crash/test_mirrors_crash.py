"""Machines with several ESPs: whenever the power fails, the machine boots from one of them.

For every n a command dies at its n-th change. Then each ESP boots the old default or the new one.
The next update makes them the same.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot.menu import read_menu
from bootc.boot.scheme import Scheme
from bootc.deploy import finalize
from bootc.deploy import rollback as orders
from bootc.deploy import upgrade as updates
from bootc.deploy.host.session import HostSession
from bootc.deploy.upgrade import UpdateOptions
from support import osimages
from support.bootdirs import NONE_UKI, SYSTEMD, SYSTEMD_UKI, scheme_name
from support.failing import dies
from support.machine import Command, FakeMachine, Journal
from support.osimages import Channel, Images
from support.stored import IN_MEMORY

#: More changes than any command makes.
LIMIT = 400
ESPS = ("esp", "esp2")


class Bench:
    """A machine that runs NEW, can go back to OLD, and has TURNED staged."""

    def __init__(self, scheme: Scheme, top: Path) -> None:
        self.images = Images(top / "images", scheme.boot_type)
        self.channel = Channel(top / "channel", self.images, osimages.OLD)
        self.machine = FakeMachine(top / "machine", scheme, self.images, ESPS)
        self.machine.install(self.channel)
        self.channel.offer(osimages.NEW)
        self.machine.command(upgrade)
        assert self.machine.reboot() is None
        self.channel.offer(osimages.TURNED)
        self.machine.command(upgrade)


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as top:
        yield Bench(request.param, Path(top))


def upgrade(system: HostSession, journal: Journal) -> object:
    return updates.upgrade(system, UpdateOptions(), journal)


def rollback(system: HostSession, journal: Journal) -> None:
    orders.rollback(system, journal)


def cancel(system: HostSession, journal: Journal) -> None:
    updates.cancel(system, journal)


def delete(system: HostSession, journal: Journal) -> None:
    shown = read_menu(system.boot, staged=False).items
    old = next(i.deployment for i in shown if i.deployment != system.booted.image_id)
    orders.delete_deployment(system, old.hex, journal)


def defaults(machine: FakeMachine) -> list[str]:
    """Return what each ESP boots by default, and fail unless that is whole."""
    found = []
    for name in machine.esps:
        seen = machine.started_from(name)
        first = seen.menu()[0]
        seen.check_bootable(first)
        found.append(first.image_id)
    return found


def outdated(machine: FakeMachine) -> list[str]:
    findings = machine.status()["status"].get("findings", ())
    return [finding["subject"] for finding in findings if finding["kind"] == "outdated"]


def cuts(bench: Bench, where: Path, command: Command) -> Iterator[FakeMachine]:
    """Yield machines whose power failed at the first, the second … change of a command."""
    for number in range(1, LIMIT):
        machine = bench.machine.copy(where / str(number))
        cut = dies(number, machine.unattended(command))
        if not cut:
            assert number > 5
            return
        yield machine
        shutil.rmtree(machine.path)
    pytest.fail(f"still not done after {LIMIT} changes")


@pytest.mark.parametrize(
    ("bench", "command"),
    [
        (SYSTEMD, finalize.finalize_staged),
        (SYSTEMD, rollback),
        (SYSTEMD, upgrade),
        (SYSTEMD, delete),
        (SYSTEMD_UKI, finalize.finalize_staged),
        (NONE_UKI, finalize.finalize_staged),
    ],
    indirect=["bench"],
    ids=lambda value: scheme_name(value) if isinstance(value, Scheme) else value.__name__,
)
def test_each_esp_boots_at_every_moment(bench: Bench, where: Path, command: Command) -> None:
    new = bench.images.ids["new"]
    known = set(bench.images.ids.values())
    seen = set()
    states = set()
    bench.channel.offer(osimages.RENAMED if command is upgrade else osimages.TURNED)
    for machine in cuts(bench, where, command):
        main, mirror = defaults(machine)
        assert {main, mirror} <= known
        seen.add((main == new, mirror == new))
        state = (main, mirror, files(machine, "esp2"))
        if state not in states:
            states.add(state)
            check_repair(machine, bench.channel.image_id)
    bench.channel.offer(osimages.TURNED)
    if command in (finalize.finalize_staged, rollback) and bench.machine.scheme is not NONE_UKI:
        # The mirror comes first. Without a boot loader the firmware has the menu.
        assert seen == {(True, True), (True, False), (False, False)}


def files(machine: FakeMachine, esp: str) -> tuple[str, ...]:
    return tuple(sorted(name for name in machine.contents(repository=False) if f"{esp}/" in name))


def check_repair(machine: FakeMachine, newest: str) -> None:
    """Fail unless the next update makes all ESPs the same."""
    machine.start()
    machine.command(upgrade)
    assert machine.reboot() is None
    assert defaults(machine) == [newest] * 2
    assert outdated(machine) == []


@pytest.mark.parametrize("bench", [SYSTEMD], indirect=True, ids=scheme_name)
def test_an_update_that_is_given_up_between_the_two(bench: Bench, where: Path) -> None:
    """The mirror boots a deployment whose state is removed then."""
    new, turned = (bench.images.ids[tag] for tag in ("new", "turned"))
    met = 0
    for machine in cuts(bench, where, finalize.finalize_staged):
        if defaults(machine) != [new, turned]:
            continue
        met += 1
        machine.start()
        again = machine.copy(where / "again")
        for number in range(1, LIMIT):
            given_up = again.copy(where / "given-up")
            cut = dies(number, given_up.unattended(cancel))
            main, mirror = defaults(given_up)
            assert main == new
            assert mirror in (new, turned)
            shutil.rmtree(given_up.path)
            if not cut:
                assert mirror == new
                break
        shutil.rmtree(again.path)
        break
    assert met
