"""The harness drives a real machine, the live one: runs commands in it, saves and resumes it."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from stations import SMALL, SMALL_BYTES

from testbed import disks
from testbed.command import Disk, Hardware
from testbed.demo_os import DemoOs
from testbed.machine import CommandError, Machine, MachineError
from testbed.qemu import Qemu, find_qemu
from testbed.saved import Saved

pytestmark = pytest.mark.boot


@pytest.fixture(scope="module")
def machine(
    live_machine: Saved, logs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    hardware = live_machine.copy(tmp_path_factory.mktemp("machine"))
    with Machine(hardware, keep_console=logs / "machine.txt", resume=live_machine) as machine:
        machine.wait_ready()
        yield machine
    remove_disks(hardware)


def remove_disks(hardware: Hardware) -> None:
    """Delete what only takes room when the test is over."""
    for disk in hardware.disks:
        disk.path.unlink()


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
    """In PID 1's mount namespace, with EFI variables and the disks."""
    machine.run("test /proc/self/ns/mnt -ef /proc/1/ns/mnt")
    machine.run("ls /sys/firmware/efi/efivars/BootOrder-*")
    size = machine.run("blockdev --getsize64 /dev/disk/by-id/virtio-small").stdout
    assert int(size) == SMALL_BYTES


def test_the_console_is_text(machine: Machine) -> None:
    machine.run("echo from the guest >/dev/ttyS0")
    assert machine.wait_console(r"from the (\w+)", timeout_s=30)[1] == "guest"
    assert "\x1b" not in machine.console_text()
    with pytest.raises(MachineError, match="ran on without showing 'never said'"):
        machine.wait_console("never said", timeout_s=1)


def test_resumed_twice_two_machines_run_side_by_side(
    live_machine: Saved, logs: Path, tmp_path: Path
) -> None:
    """Each begins where the machine was saved, and has disks of its own."""
    before = {path: path.read_bytes() for path in small_files(live_machine)}
    with ExitStack() as stack:
        machines, parts = [], []
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            parts.append(live_machine.copy(tmp_path / name))
            stack.callback(remove_disks, parts[-1])
            console = logs / f"resumed-{name}.txt"
            machine = Machine(parts[-1], keep_console=console, resume=live_machine)
            machines.append(stack.enter_context(machine))
        first, second = machines
        assert first.wait_ready() == second.wait_ready()
        for machine, text in ((first, "one"), (second, "two")):
            assert machine.run(f"head -c 3 {SMALL}").stdout_bytes == bytes(3)
            machine.run(f"printf {text} | dd of={SMALL} conv=fsync; echo {text} >/written; sync")
            machine.run("echo seen >/dev/ttyS0")
            machine.wait_console("seen", timeout_s=30)
            assert "Linux version" not in machine.console_text()
        for machine, part, text in ((first, parts[0], "one"), (second, parts[1], "two")):
            assert machine.run("cat /written").stdout == f"{text}\n"
            assert part.disks[2].path.read_bytes()[:3] == text.encode()
    assert {path: path.read_bytes() for path in small_files(live_machine)} == before


def small_files(saved: Saved) -> list[Path]:
    """Return what a resumed machine might spoil and is quick to compare."""
    return [saved.hardware.disks[2].path, saved.hardware.firmware_vars]


@pytest.fixture
def copies(live_machine: Saved, tmp_path: Path) -> Iterator[Hardware]:
    """The parts of one more live machine; afterwards only small files are left."""
    hardware = live_machine.copy(tmp_path)
    yield hardware
    remove_disks(hardware)
    shutil.rmtree(tmp_path / "saved", ignore_errors=True)


def test_a_resumed_machine_is_saved_again(
    live_machine: Saved, copies: Hardware, tmp_path: Path
) -> None:
    """It goes on from there, with the time of now, and shuts down in good order."""
    with Machine(copies, resume=live_machine) as machine:
        machine.wait_ready()
        machine.run("touch /run/seen; date --set=@2000000000")
        saved = machine.save(tmp_path / "saved")
        directory = machine._directory
    assert not directory.exists()
    assert {path.name for path in saved.directory.iterdir()} == {
        "state", "vars.fd", *(f"{disk.serial}.img" for disk in copies.disks),
    }  # fmt: skip
    with Machine(copies, resume=saved) as machine:
        machine.wait_ready()
        machine.run("test -e /run/seen")
        assert abs(int(machine.run("date +%s").stdout) - time.time()) < 120
        machine.power_off()


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


#: An emulator that writes a few lines. Then it stands still the first time, and later shows a
#: kernel and a ready agent.
EMULATOR = """\
import json, os, re, socket, sys, time
words = " ".join(sys.argv)
agent = socket.socket(socket.AF_UNIX)
agent.connect(re.search(r"path=(\\S+?)(,| )", words)[1])
console = open(re.search(r"file:(\\S+)", words)[1], "w")
for _ in range(LINES):
    print("firmware", file=console, flush=True)
    time.sleep(0.5)
try:
    os.close(os.open(FIRST, os.O_CREAT | os.O_EXCL))
    hangs = HANGS
except FileExistsError:
    hangs = False
if not hangs:
    print("Run /init as init process", file=console, flush=True)
    agent.sendall(json.dumps({"ready": "boot"}).encode() + b"\\n")
time.sleep(60)
"""


@pytest.mark.parametrize(("lines", "hangs"), [(1, True), (5, False)], ids=["silent", "slow"])
def test_an_emulator_that_stands_still_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: int, hangs: bool
) -> None:
    """One that is slow, but goes on writing, is not."""
    monkeypatch.setattr("testbed.machine._INIT_TIMEOUT_S", 1.0)
    script = tmp_path / "sleeper.py"
    names = {"FIRST": str(tmp_path / "first"), "LINES": lines, "HANGS": hangs}
    text = EMULATOR
    for name, value in names.items():
        text = text.replace(name, repr(value))
    script.write_text(text)
    sleeper = Qemu((sys.executable, str(script)), tmp_path / "code.fd", tmp_path / "vars.fd")
    console = tmp_path / "console.txt"
    hardware = Hardware(tmp_path / "vars.fd", [])
    with Machine(hardware, qemu=sleeper, keep_console=console) as machine:
        assert machine.wait_ready(timeout_s=30) == "boot"
    hung = console.with_suffix(".hung")
    assert (hung.read_text() if hung.exists() else None) == ("firmware\n" if hangs else None)
    assert console.read_text() == "firmware\n" * lines + "Run /init as init process\n"


def test_an_interrupted_save_leaves_nothing(
    live_machine: Saved, copies: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disks are copied last, when the memory has been written."""
    with Machine(copies, resume=live_machine) as machine:
        machine.wait_ready()
        with monkeypatch.context() as patched:
            patched.setattr("testbed.disks.copy", interrupt)
            with pytest.raises(KeyboardInterrupt):
                machine.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def interrupt(source: Path, target: Path) -> Path:
    target.write_bytes(b"half")
    raise KeyboardInterrupt


def test_a_state_of_another_machine_is_refused(
    live_machine: Saved, copies: Hardware, tmp_path: Path
) -> None:
    """QEMU compares what it reads with the machine that it is."""
    other = replace(copies, memory_mib=copies.memory_mib + 64)
    with (
        Machine(other, resume=live_machine) as machine,
        pytest.raises(MachineError, match=r"(?s)cannot resume: .*pc\.ram"),
    ):
        machine.wait_ready()


def test_a_disk_that_forgets_cannot_be_saved(demo_os: DemoOs, tmp_path: Path) -> None:
    firmware_vars = tmp_path / "vars.fd"
    shutil.copyfile(find_qemu().firmware_vars, firmware_vars)
    target = disks.blank(tmp_path / "disk.img", 1 << 20)
    with (
        Machine(demo_os.live(target, firmware_vars)) as machine,
        pytest.raises(ValueError, match="the snapshot disk live cannot be saved"),
    ):
        machine.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_an_emulator_that_does_not_start_says_why(tmp_path: Path) -> None:
    firmware_vars = tmp_path / "vars.fd"
    shutil.copyfile(find_qemu().firmware_vars, firmware_vars)
    hardware = Hardware(firmware_vars, [Disk(tmp_path / "none.img", "none")])
    with (
        Machine(hardware) as machine,
        pytest.raises(MachineError, match=r"(?s)the machine ended.*none\.img.*No such file"),
    ):
        machine.wait_ready()
