"""Whichever of the two programs is killed at whichever change: the other one takes over.

Upstream's program is :mod:`support.upstream`. For every n one of the two dies at its n-th
change while the machine stays up; then the other one, or the same, ends what was begun.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bootc.boot.scheme import Scheme
from bootc.deploy import finalize
from bootc.deploy import upgrade as updates
from bootc.deploy.host.session import HostSession
from bootc.deploy.upgrade import UpdateOptions
from support import osimages, upstreamdisk
from support.bootdirs import GRUB, GRUB_UKI, SYSTEMD, SYSTEMD_UKI, scheme_name
from support.machine import FakeMachine, Journal
from support.osimages import Channel, Images
from support.stored import IN_MEMORY
from support.upstream import Avoided, Killed, Upstream, UpstreamError

LIMIT = 400
LOCAL = {"a": "mine", "local": "mine"}

#: Who does what to a menu; the other one takes over.
PROGRAMS = ("ours", "upstream")


@dataclass(frozen=True, slots=True)
class Bench:
    """A machine that upstream installed, to copy, and where its updates come from.

    It runs NEW, could boot OLD, and is offered TURNED. With entries of GRUB OLD and TURNED are
    the other way round: OLD has a lower version, and by upstream's names GRUB would go on
    booting NEW.
    """

    machine: FakeMachine
    channel: Channel

    def copies(self, where: Path) -> Iterator[tuple[int, FakeMachine]]:
        """Yield a copy of the machine for every number of changes."""
        for number in range(1, LIMIT):
            yield number, self.machine.copy(where / str(number))
            shutil.rmtree(where / str(number))
        pytest.fail(f"still not done after {LIMIT} changes")


@pytest.fixture(params=[SYSTEMD, SYSTEMD_UKI, GRUB, GRUB_UKI], ids=scheme_name)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    scheme: Scheme = request.param
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as root:
        images = Images(Path(root, "images"), scheme.boot_type)
        first, last = osimages.OLD, osimages.TURNED
        if scheme == GRUB:
            first, last = last, first
        channel = Channel(Path(root, "channel"), images, first)
        machine = FakeMachine(Path(root, "machine"), scheme, images)
        upstreamdisk.install(machine, channel)
        for name, text in LOCAL.items():
            (machine.state(machine.booted_id) / "etc" / name).write_text(text)
        channel.offer(osimages.NEW)
        stage(machine, channel, "upstream")
        assert machine.reboot() is None
        assert machine.booted_id == images.ids["new"]
        channel.offer(last)
        yield Bench(machine, channel)


def upgrade(system: HostSession, journal: Journal) -> object:
    return updates.upgrade(system, UpdateOptions(), journal)


def stage(machine: FakeMachine, channel: Channel, program: str) -> None:
    if program == "ours":
        machine.command(upgrade)
        return
    upstream = Upstream(machine)
    # It does not remove what an interrupted attempt left, but of what has been pulled: then the
    # second attempt does.
    with contextlib.suppress(UpstreamError):
        upstream.upgrade(channel)
        return
    upstream.upgrade(channel)


def dies(machine: FakeMachine, number: int, command: Callable[[Upstream], object]) -> bool:
    """Run one of upstream's commands that is killed at a change; tell whether it came to that."""
    upstream = Upstream(machine)
    upstream.killed_at = number
    try:
        command(upstream)
    except Killed:
        return True
    return False


def check(machine: FakeMachine) -> None:
    """Fail unless everything in the menu is whole, and the status knows what boots next."""
    for shown in machine.menu():
        machine.check_bootable(shown)
    status = machine.status()["status"]
    assert status["booted"]["composefs"]["verity"] == machine.booted_id
    if status["staged"] is not None:
        image_id = status["staged"]["composefs"]["verity"]
        entries = [*machine.staged_menu(), *machine.menu()]
        machine.check_bootable(next(entry for entry in entries if entry.image_id == image_id))


def check_updated(bench: Bench, machine: FakeMachine) -> None:
    """Fail unless the machine runs the update, with the local changes, and can go back."""
    check(machine)
    assert machine.booted_id == bench.channel.image_id
    assert bench.machine.booted_id in {shown.image_id for shown in machine.menu()}
    assert machine.etc(machine.booted_id).items() >= LOCAL.items()


@pytest.mark.parametrize("stager", PROGRAMS)
def test_a_finalizer_is_killed(bench: Bench, where: Path, stager: str) -> None:
    """That of the other one than has staged; then this program's ends it."""
    killed = "ours" if stager == "upstream" else "upstream"
    stage(bench.machine, bench.channel, stager)
    lost = False
    for number, machine in bench.copies(where):
        if killed == "ours":
            died = machine.killed(number, finalize.finalize_staged)
        else:
            died = dies(machine, number, Upstream.finalize)
        check(machine)
        staged = machine.status()["status"]["staged"]
        assert machine.reboot() is None
        if staged is None and machine.booted_id == bench.machine.booted_id:
            # Withdrawn, since the staged menu has to be written again.
            lost = True
            assert writes_again(bench)
            machine.command(upgrade)
            assert machine.reboot() is None
        check_updated(bench, machine)
        if not died:
            break
    assert lost is (killed == "ours" and writes_again(bench))


def writes_again(bench: Bench) -> bool:
    """Tell whether this program writes the menu again that upstream has staged."""
    return bench.machine.scheme == GRUB


def test_ours_is_killed_and_upstreams_finalizes(bench: Bench, where: Path) -> None:
    if writes_again(bench):
        bench.channel.offer(osimages.RENAMED)
    stage(bench.machine, bench.channel, "upstream")
    outcomes = set()
    for number, machine in bench.copies(where):
        died = machine.killed(number, finalize.finalize_staged)
        # Where it avoids to, it would exchange the menu of before back.
        with contextlib.suppress(Avoided):
            outcomes.add(Upstream(machine).finalize())
        machine.start()
        check_updated(bench, machine)
        if not died:
            break
    assert outcomes == {bench.channel.image_id, None}


@pytest.mark.parametrize("killed", PROGRAMS)
def test_staging_is_killed(bench: Bench, where: Path, killed: str) -> None:
    """Shut down with what is left, and let the other one stage in its place."""
    outcomes = set()
    for number, machine in bench.copies(where):
        if killed == "ours":
            died = machine.killed(number, upgrade)
        else:
            died = dies(machine, number, lambda upstream: upstream.upgrade(bench.channel))
        check(machine)
        announced = machine.status()["status"]["staged"] is not None
        other = machine.copy(where / f"{number}-shut-down")
        assert other.reboot() is None
        check(other)
        assert (other.booted_id == bench.channel.image_id) is announced
        outcomes.add(announced)
        stage(machine, bench.channel, "ours" if killed == "upstream" else "upstream")
        assert machine.reboot() is None
        check_updated(bench, machine)
        shutil.rmtree(other.path)
        if not died:
            break
    assert outcomes == {True, False}


def test_a_rollback_of_upstreams_is_killed(bench: Bench, where: Path) -> None:
    stage(bench.machine, bench.channel, "ours")
    for number, machine in bench.copies(where):
        died = dies(machine, number, Upstream.rollback)
        check(machine)
        machine.reboot()
        check(machine)
        machine.command(upgrade)
        assert machine.reboot() is None
        assert machine.booted_id == bench.channel.image_id
        check(machine)
        if not died:
            break
