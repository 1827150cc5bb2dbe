"""What the test bed says to QEMU and to the guest when it saves and resumes a machine.

An emulator writes it down. ``test_machine.py`` does the same with real machines.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from testbed.command import Disk, Hardware
from testbed.machine import Machine, MachineError
from testbed.qemu import Qemu

#: Connects as QEMU does, answers on both sockets, and writes down what it is told.
EMULATOR = """\
import json, re, socket, sys, threading
words = " ".join(sys.argv)
log = open(LOG, "a", buffering=1)
incoming = re.search(r"-incoming file:(\\S+)", words)
status = ["inmigrate", "paused"] if incoming else ["running"]

def connect(name):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(re.search(rf"id={name},path=(\\S+)", words)[1])
    return connection.makefile("rw", buffering=1)

def agent():
    with connect("agent") as port:
        if not incoming:
            print(json.dumps({"ready": "boot"}), file=port)
        for line in port:
            request = json.loads(line)
            print("guest:", request["command"], file=log)
            answer = {"id": request["id"], "stream": "stdout", "data": "boot\\n"}
            print(json.dumps(answer), file=port)
            print(json.dumps({"id": request["id"], "rc": 0}), file=port)

def answer(command, arguments):
    if command == "migrate":
        if FAILS:
            return {"error": {"desc": "no space left"}}
        open(arguments["uri"].removeprefix("file:"), "w").write("memory")
    if command == "query-migrate":
        return {"return": {"status": "completed"}}
    if command == "query-status":
        return {"return": {"status": status.pop(0)}}
    return {"return": {}}

def monitor():
    with connect("monitor") as port:
        print('{"QMP": {}}', file=port)
        for line in port:
            request = json.loads(line)
            print("monitor:", request["execute"], file=log)
            print(json.dumps(answer(request["execute"], request["arguments"])), file=port)

if incoming:
    print("resumed with", open(incoming[1]).read(), file=log)
print("Run /init as init process", file=open(re.search(r"file:(\\S+console)", words)[1], "w"))
threading.Thread(target=agent).start()
monitor()
"""


@pytest.fixture
def hardware(tmp_path: Path) -> Hardware:
    (tmp_path / "a.img").write_bytes(b"disk")
    (tmp_path / "vars").write_bytes(b"variables")
    return Hardware(tmp_path / "vars", [Disk(tmp_path / "a.img", "root")])


def emulator(directory: Path, *, fails: bool = False) -> Qemu:
    script = directory / "emulator.py"
    log = repr(str(directory / "log"))
    script.write_text(EMULATOR.replace("LOG", log).replace("FAILS", str(fails)))
    return Qemu((sys.executable, str(script)), directory / "code.fd", directory / "vars.fd")


def heard(directory: Path) -> list[str]:
    """Return what the emulator was told since the last question, and forget it."""
    lines = (directory / "log").read_text().splitlines()
    (directory / "log").write_text("")
    return lines


def test_saved_and_resumed(hardware: Hardware, tmp_path: Path) -> None:
    qemu = emulator(tmp_path)
    with Machine(hardware, qemu=qemu) as machine:
        assert machine.wait_ready(timeout_s=30) == "boot"
        saved = machine.save(tmp_path / "saved")
        assert machine._process is not None
        assert machine._process.returncode is not None, "it would write to the copied disks"
    assert heard(tmp_path) == [
        "monitor: qmp_capabilities",
        "monitor: stop",
        "monitor: migrate-set-parameters",
        "monitor: migrate",
        "monitor: query-migrate",
    ]
    content = {path.name: path.read_bytes() for path in saved.directory.iterdir()}
    assert content == {"state": b"memory", "root.img": b"disk", "vars.fd": b"variables"}

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with Machine(saved.copy(tmp_path / name), qemu=qemu, resume=saved) as machine:
            assert machine.wait_ready() == "boot"
        *lines, clock, boot_id = heard(tmp_path)
        assert lines == [
            "resumed with memory",
            "monitor: qmp_capabilities",
            "monitor: query-status",
            "monitor: query-status",
            "monitor: cont",
        ]
        said, _, seconds = clock.partition("@")
        assert (said, boot_id) == (
            "guest: date --set=",
            "guest: cat /proc/sys/kernel/random/boot_id",
        )
        assert abs(float(seconds) - time.time()) < 60


def test_a_resumed_machine_is_saved_over_the_same_monitor(
    hardware: Hardware, tmp_path: Path
) -> None:
    qemu = emulator(tmp_path)
    with Machine(hardware, qemu=qemu) as machine:
        machine.wait_ready(timeout_s=30)
        first = machine.save(tmp_path / "first")
    with Machine(hardware, qemu=qemu, resume=first) as machine:
        machine.wait_ready()
        second = machine.save(tmp_path / "second")
    assert second.state.read_text() == "memory"
    first.remove()
    assert second.hardware.disks[0].path.read_bytes() == b"disk"


def test_qemu_that_cannot_save_is_quoted(hardware: Hardware, tmp_path: Path) -> None:
    with Machine(hardware, qemu=emulator(tmp_path, fails=True)) as machine:
        machine.wait_ready(timeout_s=30)
        with pytest.raises(MachineError, match="cannot save: migrate: no space left"):
            machine.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_directory_that_exists_is_not_touched(hardware: Hardware, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    with Machine(hardware, qemu=emulator(tmp_path)) as machine:
        machine.wait_ready(timeout_s=30)
        with pytest.raises(FileExistsError):
            machine.save(tmp_path / "saved")
    assert (tmp_path / "saved").exists()
    assert "monitor: stop" not in heard(tmp_path)


def test_a_state_that_is_gone_is_an_error_of_the_machine(
    hardware: Hardware, tmp_path: Path
) -> None:
    qemu = emulator(tmp_path)
    with Machine(hardware, qemu=qemu) as machine:
        machine.wait_ready(timeout_s=30)
        saved = machine.save(tmp_path / "saved")
    saved.state.unlink()
    with pytest.raises(MachineError, match=r"(?s)QEMU ended: .*FileNotFoundError"):
        Machine(hardware, qemu=qemu, resume=saved).__enter__()
