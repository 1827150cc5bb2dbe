"""The harness drives a real machine: the live one, which bootc has no part in."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import disks
from testbed.command import Disk, Hardware
from testbed.demo_os import DemoOs
from testbed.machine import CommandError, Machine, MachineError
from testbed.qemu import Qemu, find_qemu

pytestmark = pytest.mark.boot


@pytest.fixture(scope="module")
def machine(
    demo_os: DemoOs, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    directory = tmp_path_factory.mktemp("machine")
    firmware_vars = directory / "vars.fd"
    shutil.copyfile(find_qemu().firmware_vars, firmware_vars)
    target = disks.blank(directory / "disk.img", 1 << 20)
    with Machine(demo_os.live(target, firmware_vars), keep_console=logs / "machine.txt") as machine:
        machine.wait_ready()
        yield machine


def test_output_comes_back_byte_for_byte(machine: Machine) -> None:
    data = bytes(range(256)) * 2000
    pieces: list[bytes] = []
    result = machine.run(
        "cat; echo aside >&2", input_bytes=data, on_output=lambda _, piece: pieces.append(piece)
    )
    assert (result.rc, result.stdout_bytes, result.stderr) == (0, data, "aside\n")
    assert sum(map(len, pieces)) == len(data) + len("aside\n")


def test_input_need_not_be_read(machine: Machine) -> None:
    assert machine.run("true", input_bytes=bytes(1 << 20)).stdout == ""


def test_a_failure_is_told_with_what_it_said(machine: Machine) -> None:
    with pytest.raises(CommandError, match=r"(?s)'echo why >&2; exit 3': exit status 3.*why"):
        machine.run("echo why >&2; exit 3")
    assert machine.run("exit 3", check=False).rc == 3


def test_a_command_may_run_out_of_time(machine: Machine) -> None:
    begin = time.monotonic()
    result = machine.run("echo before; sleep 300 & sleep 300", timeout_s=2, check=False)
    assert (result.rc, result.stdout) == (None, "before\n")
    assert time.monotonic() - begin < 60
    assert machine.run("echo after").stdout == "after\n"


def test_commands_run_where_the_system_does(machine: Machine) -> None:
    """In PID 1's mount namespace, with EFI variables and a fresh disk."""
    machine.run("test /proc/self/ns/mnt -ef /proc/1/ns/mnt")
    machine.run("ls /sys/firmware/efi/efivars/BootOrder-*")
    assert machine.run("blockdev --getsize64 /dev/disk/by-id/virtio-target").stdout == "1048576\n"


def test_the_console_is_text(machine: Machine) -> None:
    machine.run("echo from the guest >/dev/ttyS0")
    assert machine.wait_console(r"from the (\w+)", timeout_s=30)[1] == "guest"
    assert "\x1b" not in machine.console_text()
    with pytest.raises(MachineError, match="ran on without showing 'never said'"):
        machine.wait_console("never said", timeout_s=1)


def test_nothing_is_left_behind(demo_os: DemoOs, tmp_path: Path) -> None:
    """Also when the machine is left in the middle of its start."""
    firmware_vars = tmp_path / "vars.fd"
    shutil.copyfile(find_qemu().firmware_vars, firmware_vars)
    target = disks.blank(tmp_path / "disk.img", 1 << 20)
    console = tmp_path / "console.txt"
    with Machine(demo_os.live(target, firmware_vars), keep_console=console) as machine:
        directory, process = machine._directory, machine._process
        assert process is not None
        os.kill(process.pid, 0)
    assert process.returncode is not None
    assert not directory.exists()
    assert console.exists()


#: An emulator that shows nothing the first time, and then a kernel and a ready agent.
SLEEPER = """\
import json, os, re, socket, sys, time
words = " ".join(sys.argv)
agent = socket.socket(socket.AF_UNIX)
agent.connect(re.search(r"path=(\\S+?)(,| )", words)[1])
console = open(re.search(r"file:(\\S+)", words)[1], "w")
print("firmware", file=console, flush=True)
try:
    os.close(os.open(FIRST, os.O_CREAT | os.O_EXCL))
except FileExistsError:
    print("Run /init as init process", file=console, flush=True)
    agent.sendall(json.dumps({"ready": "boot"}).encode() + b"\\n")
time.sleep(60)
"""


def test_an_emulator_that_stands_still_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("testbed.machine._INIT_TIMEOUT_S", 1.0)
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER.replace("FIRST", repr(str(tmp_path / "first"))))
    sleeper = Qemu((sys.executable, str(script)), tmp_path / "code.fd", tmp_path / "vars.fd")
    console = tmp_path / "console.txt"
    hardware = Hardware(tmp_path / "vars.fd", [])
    with Machine(hardware, qemu=sleeper, keep_console=console) as machine:
        assert machine.wait_ready(timeout_s=30) == "boot"
    assert console.with_suffix(".hung").read_text() == "firmware\n"
    assert console.read_text() == "firmware\nRun /init as init process\n"


def test_an_emulator_that_does_not_start_says_why(tmp_path: Path) -> None:
    firmware_vars = tmp_path / "vars.fd"
    shutil.copyfile(find_qemu().firmware_vars, firmware_vars)
    hardware = Hardware(firmware_vars, [Disk(tmp_path / "none.img", "none")])
    with (
        Machine(hardware) as machine,
        pytest.raises(MachineError, match=r"(?s)the machine ended.*none\.img.*No such file"),
    ):
        machine.wait_ready()
