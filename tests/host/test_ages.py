"""The command line on disks that upstream's program of any age has written, all but booted."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bootc.formats.origin import BootType
from support import osimages
from support.ages import OLDEST, RELABELLED, V1_16_0, V1_17, Age, later
from support.bootdirs import GRUB
from support.bootedroot import Done, loop_disk, run, run_inside
from support.machine import FakeMachine
from support.osimages import Channel, Images
from support.upstream import Upstream
from support.upstreamdisk import Installation

pytestmark = pytest.mark.host

#: Those that the command line itself sees a difference of; ``tests/unit/deploy`` has all.
DISKS = (OLDEST, V1_16_0, RELABELLED, V1_17)


class Host:
    """A machine that upstream's program of an age has installed with OLD."""

    def __init__(self, path: Path, device: str, age: Age) -> None:
        self._path = path
        self._device = device
        self.images = Images(path / "images", BootType.BLS, age=age)
        self.channel = Channel(path / "channel", self.images, osimages.OLD)
        self.other = Channel(path / "other", self.images, osimages.RENAMED)
        self.machine = FakeMachine(path / "machine", GRUB, self.images)
        with self.mounted():
            self.booted = Installation(self.machine, age).run(self.channel)
        self._argument = age.argument(self.booted, age.installed_format, optional=True)

    def run(self, *commands: list[str] | str) -> list[Done]:
        """Run commands, one after the other, without a boot in between."""
        return run_inside(
            self._path,
            commands,
            device=self._device,
            image_id=self.booted,
            argument=self._argument,
        )

    @contextlib.contextmanager
    def mounted(self) -> Iterator[FakeMachine]:
        """Mount the disk outside of the machine."""
        self.machine.physical.mkdir(parents=True, exist_ok=True)
        run("mount", self._device, str(self.machine.physical))
        try:
            yield self.machine
        finally:
            run("umount", str(self.machine.physical))


@pytest.fixture(params=DISKS, ids=lambda age: age.name.replace(" ", "-"))
def age(request: pytest.FixtureRequest) -> Age:
    found: Age = request.param
    return found


@pytest.fixture
def host(tmp_path: Path, age: Age) -> Iterator[Host]:
    with loop_disk(tmp_path / "disk.img") as device:
        yield Host(tmp_path, device, age)


def status_of(done: Done) -> dict[str, Any]:
    assert done.code == 0, done.err
    status: dict[str, Any] = json.loads(done.out)["status"]
    assert "findings" not in status
    return status


def test_an_update_by_the_command_line(host: Host, age: Age) -> None:
    host.channel.offer(osimages.NEW)
    new = host.images.id_in(osimages.NEW, age.repository_format)
    fsck = ["internals", "cfs", "fsck"]
    described = "cd /sysroot/composefs; ls meta.json 2>/dev/null || true"
    status, look, dry, before, upgrade, staged, shutdown, garbage, *checks, again = host.run(
        ["status", "--json"],
        ["upgrade", "--check"],
        ["upgrade", "--dry-run"],
        described,
        ["upgrade"],
        ["status", "--json"],
        ["composefs-finalize-staged"],
        ["internals", "composefs-gc", "--prune-repo"],
        ["internals", "composefs-gc", "--prune-repo", "--assert-no-op"],
        fsck,
        ["internals", "cfs", "oci", "fsck"],
        ["rollback"],
    )
    found = status_of(status)["booted"]
    assert found["composefs"]["verity"] == host.booted
    assert found["image"]["imageDigest"] == host.images.entry(osimages.OLD)["digest"]
    for done in (look, dry, upgrade, shutdown, garbage, *checks, again):
        assert done.code == 0, done.err
    assert look.out.startswith("Update available for")
    # Commands that only look have not written what was missing.
    assert before.out == ("" if age.meta is None else "meta.json\n")
    assert status_of(staged)["staged"]["composefs"]["verity"] == new
    assert again.out.splitlines()[-1] == "Next boot: current deployment"
    with host.mounted() as machine:
        assert machine.start() == host.booted
        assert [shown.image_id for shown in machine.menu()] == [host.booted, new]
        for shown in machine.menu():
            machine.check_bootable(shown)


def test_a_switch_that_upstream_finalizes(host: Host, age: Age) -> None:
    target = ["switch", "--transport", "oci", str(host.other.path)]
    switch, status = host.run(target, ["status", "--json"])
    assert switch.code == 0, switch.err
    staged = status_of(status)["staged"]["composefs"]["verity"]
    assert staged == host.other.image_id
    if not age.prefixed:
        return  # Upstream's program loses entries when it renames old kernels.
    with host.mounted() as machine:
        machine.start()
        machine.start_finalizer()
        marker = {"depl_id": staged, "finalization_locked": False}
        (machine.run / "composefs/staged-deployment").write_text(json.dumps(marker))
        upstream = Upstream(machine, later(age)[-1])
        assert upstream.finalize() == staged
        assert {shown.image_id for shown in machine.menu()} == {staged, host.booted}
