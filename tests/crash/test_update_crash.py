"""Whenever the power fails during an update, a shutdown or a clean-up: the machine boots.

For every n a command dies at its n-th change. Then the machine starts, answers what it is,
and has lost nothing; the same command once more, an orderly shutdown and a start end where
they would have ended without the interruption.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bootc.boot.scheme import Scheme
from bootc.deploy import cleanup, finalize
from bootc.deploy import rollback as orders
from bootc.deploy import upgrade as updates
from bootc.deploy.host.session import HostSession
from bootc.deploy.upgrade import UpdateOptions
from bootc.errors import Error
from support import osimages
from support.bootdirs import GRUB_UKI, SYSTEMD, scheme_name
from support.machine import Command, FakeMachine, Journal
from support.osimages import Channel, Images
from support.stored import IN_MEMORY

#: More changes than any command makes: the loop's end is a failure.
LIMIT = 400
#: What the administrator wrote on the first deployment, and has to find on every later one.
LOCAL = {"a": "mine", "local": "mine"}


@dataclass(frozen=True, slots=True)
class Bench:
    """A machine to copy, and where its updates come from."""

    machine: FakeMachine
    channel: Channel

    def copies(self, where: Path) -> Iterator[tuple[int, FakeMachine]]:
        """Yield a copy of the machine for every number of changes."""
        for number in range(1, LIMIT):
            yield number, self.machine.copy(where / str(number))
            shutil.rmtree(where / str(number))
        pytest.fail(f"still not done after {LIMIT} changes")


@pytest.fixture(scope="module", params=[SYSTEMD, GRUB_UKI], ids=scheme_name)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Yield a machine that runs NEW, can go back to OLD, and has TURNED staged."""
    scheme: Scheme = request.param
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root:
        images = Images(Path(root, "images"), scheme.boot_type)
        channel = Channel(Path(root, "channel"), images, osimages.OLD)
        machine = FakeMachine(Path(root, "machine"), scheme, images)
        machine.install(channel)
        for name, text in LOCAL.items():
            (machine.state(machine.booted_id) / "etc" / name).write_text(text)
        channel.offer(osimages.NEW)
        machine.command(upgrade)
        assert machine.reboot() is None
        channel.offer(osimages.TURNED)
        machine.command(upgrade)
        yield Bench(machine, channel)


def upgrade(system: HostSession, journal: Journal) -> object:
    return updates.upgrade(system, UpdateOptions(), journal)


def cancel(system: HostSession, journal: Journal) -> None:
    updates.cancel(system, journal)


def rollback(system: HostSession, journal: Journal) -> None:
    orders.rollback(system, journal)


def collect(system: HostSession, journal: Journal) -> object:
    return cleanup.collect_garbage(system, journal)


def check(machine: FakeMachine) -> None:
    """Fail unless everything in the menu is whole, and the status knows what runs."""
    for shown in machine.menu():
        machine.check_bootable(shown)
        etc = machine.etc(shown.image_id)
        assert etc.items() >= LOCAL.items()
        assert etc.keys() == machine.images.image(shown.image_id).etc.keys() | LOCAL.keys()
    status = machine.status()["status"]
    assert status["booted"]["composefs"]["verity"] == machine.booted_id
    assert status["booted"]["image"] is not None


def again(machine: FakeMachine, command: Command) -> None:
    """Do something once more, of which perhaps nothing is left to do."""
    with contextlib.suppress(Error):
        machine.command(command)
    check(machine)


def interrupted(
    bench: Bench, where: Path, command: Command, *, restarted: bool = False
) -> Iterator[FakeMachine]:
    """Yield machines whose power failed at the first, the second … change of a command.

    Those that are restarted before it have nothing staged any more, and what is left of that.
    """
    for number, machine in bench.copies(where):
        if restarted:
            machine.start()
        if not machine.power_cut(number, command):
            assert number > 5
            return
        check(machine)
        yield machine


def tidy(machine: FakeMachine) -> None:
    """Fail unless a clean-up leaves what deployments of the menu need, and nothing else."""
    again(machine, collect)
    shown = {entry.image_id for entry in machine.menu()}
    assert set(machine.states()) == shown
    assert {
        link.name for link in (machine.physical / "composefs/images").iterdir() if link.is_symlink()
    } >= shown
    done = machine.contents(repository=True)
    machine.command(collect)
    assert machine.contents(repository=True) == done


@pytest.mark.parametrize("restarted", [False, True], ids=["staged", "leftover"])
def test_an_upgrade(bench: Bench, where: Path, restarted: bool) -> None:
    # In place of what is staged, or of what is left of the same.
    bench.channel.offer(osimages.TURNED if restarted else osimages.RENAMED)
    for machine in interrupted(bench, where, upgrade, restarted=restarted):
        running = machine.booted_id
        machine.command(upgrade)
        assert machine.reboot() is None
        assert machine.booted_id == bench.channel.image_id
        assert [entry.image_id for entry in machine.menu()][1] == running
        check(machine)
        tidy(machine)
    bench.channel.offer(osimages.TURNED)


def test_a_shutdown(bench: Bench, where: Path) -> None:
    outcomes = set()
    running = bench.machine.booted_id
    for machine in interrupted(bench, where, finalize.finalize_staged):
        outcomes.add(machine.booted_id)
        assert machine.booted_id in (running, bench.channel.image_id)
        machine.command(upgrade)
        assert machine.reboot() is None
        assert machine.booted_id == bench.channel.image_id
        check(machine)
        tidy(machine)
    assert outcomes == {running, bench.channel.image_id}


def test_a_finalizer_that_is_killed_and_started_again(bench: Bench, where: Path) -> None:
    for number, machine in bench.copies(where):
        done = not machine.killed(number, finalize.finalize_staged)
        assert machine.reboot() is None
        assert machine.booted_id == bench.channel.image_id
        check(machine)
        if done:
            return


def test_a_rollback(bench: Bench, where: Path) -> None:
    old, new = bench.channel.images.ids["old"], bench.channel.images.ids["new"]
    for machine in interrupted(bench, where, rollback):
        assert machine.booted_id in (old, new)
        if machine.booted_id == new:
            machine.command(rollback)
            machine.reboot()
        assert machine.booted_id == old
        check(machine)
        tidy(machine)


def test_a_deletion(bench: Bench, where: Path) -> None:
    old, new = bench.channel.images.ids["old"], bench.channel.images.ids["new"]

    def delete(system: HostSession, journal: Journal) -> None:
        orders.delete_deployment(system, old, journal)

    for machine in interrupted(bench, where, delete):
        again(machine, delete)
        assert machine.reboot() is None
        assert [entry.image_id for entry in machine.menu()] == [new]
        tidy(machine)
        assert machine.states() == [new]


@pytest.mark.parametrize("command", [cancel, collect])
def test_clearing_up(bench: Bench, where: Path, command: Command) -> None:
    old, new = bench.channel.images.ids["old"], bench.channel.images.ids["new"]
    for machine in interrupted(bench, where, command, restarted=command is collect):
        again(machine, command)
        assert machine.reboot() is None
        assert [entry.image_id for entry in machine.menu()] == [new, old]
        tidy(machine)
