"""README's command with the real podman: the container's image is installed, and the disk boots.

The host is the live machine with Debian's podman (``support/podman.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import budget
import pytest
from stations import BLANK

from support import howto, podman, readme
from testbed.agent import Result
from testbed.command import Hardware
from testbed.demo_os import TARGET_DEVICE, DemoOs, installed
from testbed.machine import Machine
from testbed.saved import Saved

pytestmark = [pytest.mark.boot, pytest.mark.timeout(2400)]
#: Podman binds this directory to itself when a container starts, and leaves it so.
_PODMANS_OWN = "/var/lib/containers/storage/overlay"

IMAGE = "registry.example.com/os:v1"
RUN = "podman run --rm"
TO_DISK = f"bootc install to-disk {TARGET_DEVICE}"
LONG_S = 1800.0
#: What bootc refuses to do in a container, and its words.
REFUSALS = {
    f"{RUN} --privileged {IMAGE} {TO_DISK}": (
        "This command must be run with the podman --pid=host flag"
    ),
    f"{RUN} --pid=host {IMAGE} {TO_DISK}": (
        "The container must be executed with full privileges (e.g. --privileged flag)"
    ),
}


@dataclass(frozen=True)
class PodmanHost:
    """A running machine with podman, an image, and a blank disk."""

    machine: Machine
    hardware: Hardware

    def run(self, command: str) -> Result:
        """Run a command to its end, however it ends."""
        return self.machine.run(command, check=False, timeout_s=LONG_S)

    def mounts(self) -> list[str]:
        """Return all mounts of the host but the one that podman keeps for its own storage."""
        lines = self.run("cat /proc/1/mountinfo").stdout.splitlines()
        return [line for line in lines if line.split()[4] != _PODMANS_OWN]


@pytest.fixture(scope="module")
def host(
    demo_os: DemoOs, live_machine: Saved, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PodmanHost]:
    if not budget.is_left():
        budget.skip_rest(0, 1)
    directory = tmp_path_factory.mktemp("podman")
    hardware = live_machine.copy(directory)
    (disk,) = (disk.path for disk in hardware.disks if disk.serial == "blank")
    podman.fill_disk(disk, demo_os.layout, "v1", IMAGE)
    with Machine(hardware, keep_console=logs / "podman.txt", resume=live_machine) as machine:
        machine.wait_ready()
        podman.attach(machine, BLANK)
        yield PodmanHost(machine, hardware)
    for part in hardware.disks:
        part.path.unlink()


@pytest.mark.parametrize("command", REFUSALS)
def test_a_container_that_cannot_install_says_why(host: PodmanHost, command: str) -> None:
    result = host.run(command)
    assert (result.rc, result.stdout) == (1, ""), result
    assert result.stderr.startswith("error: "), result
    assert REFUSALS[command] in result.stderr


def test_the_image_of_the_container_is_installed_and_boots(host: PodmanHost, logs: Path) -> None:
    digest = host.machine.run(howto.command("podman", "podman image inspect"))
    podman_install = howto.command("podman", "podman run")
    assert readme.of_podman() == [podman_install]
    before = host.mounts()
    result = host.run(podman_install)
    assert result.rc == 0, result
    assert "Installation complete!" in result.stdout
    assert host.mounts() == before
    host.machine.power_off()

    (target,) = (disk.path for disk in host.hardware.disks if disk.serial == "target")
    hardware = installed(target, host.hardware.firmware_vars)
    with Machine(hardware, keep_console=logs / "podman-installed.txt") as machine:
        machine.wait_ready()
        assert machine.wait_running() == "running"
        root = machine.run("findmnt -no SOURCE /").stdout.strip()
        status = json.loads(machine.run("bootc status --json").stdout)
        machine.power_off()
    image = {"image": IMAGE, "transport": "registry"}
    assert status["spec"]["image"] == image
    booted = status["status"]["booted"]
    assert booted["image"]["image"] == image
    assert booted["image"]["imageDigest"] == digest.stdout.strip()
    assert root == f"composefs:{booted['composefs']['verity']}"
