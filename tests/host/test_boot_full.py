"""A boot partition without room, on a file system that has an end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot.scheme import Scheme
from bootc.boot.space import NoSpaceOnBoot
from bootc.deploy import rollback
from bootc.deploy import upgrade as updates
from bootc.deploy.host.session import HostSession
from bootc.deploy.upgrade import UpdateOptions
from support import osimages, require
from support.bootdirs import SYSTEMD, SYSTEMD_UKI, scheme_name
from support.machine import FakeMachine, Journal
from support.osimages import Channel, Images

pytestmark = pytest.mark.host

SIZE_KIB = 1024


@pytest.fixture(params=[SYSTEMD, SYSTEMD_UKI], ids=scheme_name)
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeMachine]:
    """Yield a machine with a small ESP, which runs OLD and is offered NEW."""
    require.root()
    scheme: Scheme = request.param
    images = Images(tmp_path / "images", scheme.boot_type)
    channel = Channel(tmp_path / "channel", images, osimages.OLD)
    machine = FakeMachine(tmp_path / "machine", scheme, images)
    machine.esp.mkdir(parents=True)
    options = f"size={SIZE_KIB}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", machine.esp], check=True)
    try:
        machine.install(channel)
        channel.offer(osimages.NEW)
        yield machine
    finally:
        subprocess.run(["umount", machine.esp], check=True)


def upgrade(system: HostSession, journal: Journal) -> object:
    return updates.upgrade(system, UpdateOptions(), journal)


def fill(machine: FakeMachine, *, leave_clusters: int) -> Path:
    """Put a file there that leaves this much room, and return it."""
    volume = os.statvfs(machine.esp)
    filler = machine.esp / "filler"
    filler.write_bytes(bytes((volume.f_bavail - leave_clusters) * volume.f_frsize))
    return filler


@pytest.mark.parametrize("leave_clusters", [0, 4, 16])
def test_no_room_is_told_before_anything_is_touched(
    machine: FakeMachine, leave_clusters: int
) -> None:
    filler = fill(machine, leave_clusters=leave_clusters)
    before = machine.contents(repository=False)
    with pytest.raises(NoSpaceOnBoot, match=r"has [\d.]+ (KiB|B) free, but .* needs \d+\.\d KiB"):
        machine.command(upgrade)
    assert machine.contents(repository=False) == before
    assert machine.reboot() is None
    assert machine.booted_id == machine.images.ids["old"]

    filler.unlink()
    machine.command(upgrade)
    assert machine.reboot() is None
    assert machine.booted_id == machine.images.ids["new"]


def test_what_was_planned_for_is_enough(machine: FakeMachine) -> None:
    # Kernel and initramfs, or the unified image, and what menus are allowed.
    kernel = machine.images.kernels[machine.images.ids["new"]]
    size = os.statvfs(machine.esp).f_frsize
    fill(machine, leave_clusters=16 + sum(-(-len(content) // size) for content in kernel))
    machine.command(upgrade)
    assert machine.reboot() is None
    assert machine.booted_id == machine.images.ids["new"]


def test_a_partition_that_fills_up_before_the_shutdown(machine: FakeMachine) -> None:
    machine.command(upgrade)
    fill(machine, leave_clusters=0)
    # What is exchanged was written when it was staged.
    assert machine.reboot() is None
    assert machine.booted_id == machine.images.ids["new"]
    for shown in machine.menu():
        machine.check_bootable(shown)


def test_going_back_fits_or_is_refused(machine: FakeMachine) -> None:
    machine.command(upgrade)
    assert machine.reboot() is None
    for clusters in range(5):
        filler = fill(machine, leave_clusters=clusters)
        before = machine.contents(repository=False)
        try:
            machine.command(rollback.rollback)
        except NoSpaceOnBoot:
            assert machine.contents(repository=False) == before
            filler.unlink()
        else:
            break
    assert 0 < clusters < 5
    assert machine.reboot() is None
    assert machine.booted_id == machine.images.ids["old"]
