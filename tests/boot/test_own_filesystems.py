"""The how-to for file systems of the user's own: installed on them, and booted with its /home."""

from __future__ import annotations

from pathlib import Path

import budget
import pytest
from stations import BLANK, allow_plain_http

from support import howto
from testbed.command import HOST_ADDRESS, Disk
from testbed.demo_os import installed
from testbed.machine import Machine
from testbed.saved import Saved

pytestmark = [pytest.mark.boot, pytest.mark.timeout(2400)]


def test_home_is_on_the_second_drive(
    live_machine: Saved, registry: int, logs: Path, tmp_path: Path
) -> None:
    if not budget.is_left():
        budget.skip_rest(0, 1)
    host = f"{HOST_ADDRESS}:{registry}"
    # The live machine has the blank disk that becomes /dev/vdb under another name.
    ours = {howto.IMAGE: f"docker://{host}/demo:v1", "/dev/vdb": BLANK}
    hardware = live_machine.copy(tmp_path)
    console = logs / "own-filesystems-install.txt"
    with Machine(hardware, keep_console=console, resume=live_machine) as machine:
        machine.wait_ready()
        allow_plain_http(machine, host)
        for command in howto.commands("existing-filesystems"):
            machine.run(howto.replaced(command, ours), timeout_s=1800)
        machine.power_off()

    paths = {disk.serial: disk.path for disk in hardware.disks}
    machine_of_two = installed(
        paths["target"], hardware.firmware_vars, Disk(paths["blank"], "blank")
    )
    with Machine(machine_of_two, keep_console=logs / "own-filesystems.txt") as machine:
        machine.wait_ready()
        assert machine.wait_running() == "running"
        assert machine.run("findmnt -no SOURCE /var/home").stdout.strip() == "/dev/vdb"
        assert machine.run("touch /home/written", check=False).rc == 0
        machine.power_off()
    for path in paths.values():
        path.unlink()
