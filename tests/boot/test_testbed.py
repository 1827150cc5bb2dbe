"""The test bed itself, as far as it needs no machine."""

from __future__ import annotations

import base64
import json
import os
import random
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from support import require
from testbed import disks, tamper, tpm
from testbed.command import DirectBoot, Disk, Hardware, qemu_command
from testbed.credentials import agent_credentials, smbios_options
from testbed.monitor import Monitor, MonitorError
from testbed.qemu import Qemu, QemuMissingError, in_tree
from testbed.saved import Saved

QEMU = Qemu(("qemu",), Path("/fw/code"), Path("/fw/vars"))


def test_the_command_line_boots_from_disk_by_firmware() -> None:
    argv = qemu_command(
        QEMU,
        Hardware(Path("/v"), [Disk(Path("/a,b.img"), "root", snapshot=True)]),
        console="stdio",
    )
    assert "-kernel" not in argv
    assert "-netdev" not in argv
    assert "if=pflash,format=raw,unit=1,file=/v" in argv
    assert (
        "file=/a,,b.img,format=raw,if=none,id=root,discard=unmap,detect-zeroes=unmap,"
        "cache=unsafe,snapshot=on"
    ) in argv
    assert "virtio-blk-pci,drive=root,serial=root" in argv


def test_the_command_line_boots_a_kernel_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOTC_QEMU_ACCEL", "kvm")
    direct = DirectBoot(Path("/k"), Path("/i"), "root=/dev/vda, quiet")
    argv = qemu_command(QEMU, Hardware(Path("/v"), [], direct, network=True), console="stdio")
    assert argv[argv.index("-accel") + 1] == "kvm"
    assert argv[argv.index("-append") + 1] == "root=/dev/vda, quiet"
    assert "user,id=net0" in argv


def test_the_command_line_enforces_secure_boot() -> None:
    argv = qemu_command(QEMU, Hardware(Path("/v"), [], secure_boot=True), console="null")
    assert argv[argv.index("-machine") + 1] == "q35,smm=on"
    code = "if=pflash,format=raw,unit=0,readonly=on,file=/fw/OVMF_CODE_4M.secboot.fd"
    assert code in argv
    assert "driver=cfi.pflash01,property=secure,value=on" in argv


def test_the_command_line_has_a_tpm() -> None:
    argv = qemu_command(QEMU, Hardware(Path("/v"), []), console="null", tpm=Path("/t,1"))
    assert "socket,id=tpm,path=/t,,1" in argv
    assert argv[argv.index("-tpmdev") + 1] == "emulator,id=tpm0,chardev=tpm"
    assert "tpm-crb,tpmdev=tpm0" in argv


def test_a_tpm_listens(tmp_path: Path) -> None:
    try:
        tpm.swtpm_argv()
    except QemuMissingError as exc:
        require.lacking(str(exc))
    process = tpm.start(tmp_path / "state", tmp_path / "control", tmp_path / "said")
    try:
        with socket.socket(socket.AF_UNIX) as machine:
            machine.connect(str(tmp_path / "control"))
    finally:
        process.kill()
        process.wait()


def test_a_tpm_that_does_not_start_says_why(tmp_path: Path) -> None:
    try:
        tpm.swtpm_argv()
    except QemuMissingError as exc:
        require.lacking(str(exc))
    with pytest.raises(tpm.TpmError, match="swtpm ended: swtpm: Could not open"):
        tpm.start(tmp_path / "state", tmp_path / "absent/control", tmp_path / "said")


def test_the_command_line_resumes_a_saved_machine() -> None:
    """With the same machine, and sockets of this run."""
    hardware = Hardware(Path("/v"), [Disk(Path("/a.img"), "root")])
    saved = qemu_command(QEMU, hardware, console="null", monitor=Path("/m,1"))
    resumed = qemu_command(
        QEMU, hardware, console="null", monitor=Path("/m,1"), resume=Path("/state")
    )
    assert "socket,id=monitor,path=/m,,1" in saved
    assert [word for word in resumed if word not in saved] == ["-incoming", "file:/state"]


def test_copies_of_a_saved_machine(tmp_path: Path) -> None:
    """What the machine writes to is copied, what it only reads is shared."""
    saved = saved_machine(tmp_path / "saved")
    (tmp_path / "copy").mkdir()
    hardware = saved.copy(tmp_path / "copy")
    written, read = hardware.disks
    assert (written.path, read.path) == (tmp_path / "copy/root.img", tmp_path / "saved/read.img")
    written.path.write_bytes(b"changed")
    hardware.firmware_vars.write_bytes(b"changed")
    assert (tmp_path / "saved/root.img").read_bytes() == b"disk"
    assert (tmp_path / "saved/vars.fd").read_bytes() == b"variables"
    saved.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


@pytest.mark.parametrize("missing", ["root.img", "vars.fd"])
def test_copies_that_fail_leave_nothing(tmp_path: Path, missing: str) -> None:
    saved = saved_machine(tmp_path / "saved")
    (tmp_path / "saved" / missing).unlink()
    (tmp_path / "copy").mkdir()
    with pytest.raises(subprocess.CalledProcessError):
        saved.copy(tmp_path / "copy")
    assert list((tmp_path / "copy").iterdir()) == []


def saved_machine(directory: Path) -> Saved:
    directory.mkdir()
    for name, content in (("root.img", b"disk"), ("read.img", b""), ("vars.fd", b"variables")):
        (directory / name).write_bytes(content)
    parts = [
        Disk(directory / "root.img", "root"),
        Disk(directory / "read.img", "read", read_only=True),
    ]
    return Saved(directory, Hardware(directory / "vars.fd", parts))


class Speaker(threading.Thread):
    """QEMU's end of the monitor: answers each command with the next of the given messages."""

    def __init__(self, *answers: str) -> None:
        super().__init__(daemon=True)
        self.ours, theirs = socket.socketpair()
        self._file = theirs.makefile("rwb")
        theirs.close()
        self._answers = ['{"return": {}}', *answers]
        self.heard: list[dict[str, Any]] = []
        self.start()

    def run(self) -> None:
        with self._file as file:
            file.write(b'{"QMP": {}}\n')
            file.flush()
            for answer in self._answers:
                self.heard.append(json.loads(file.readline()))
                file.write(answer.encode() + b"\n")
                file.flush()


def test_the_monitor_skips_events() -> None:
    speaker = Speaker('{"event": "STOP"}\n{"return": {"status": "paused"}}')
    with speaker.ours as connection:
        assert Monitor(connection).execute("query-status", one=1) == {"status": "paused"}
    assert speaker.heard == [
        {"execute": "qmp_capabilities", "arguments": {}},
        {"execute": "query-status", "arguments": {"one": 1}},
    ]


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (['{"error": {"class": "GenericError", "desc": "not so"}}'], "stop: not so"),
        ([], "QEMU ended|Broken pipe"),
        (
            [*['{"return": {}}'] * 3, '{"return": {"status": "failed", "error-desc": "full"}}'],
            "migrate: full",
        ),
        ([*['{"return": {}}'] * 3, '{"return": {"status": "cancelled"}}'], "migrate: cancelled"),
    ],
)
def test_a_machine_that_is_not_saved_says_why(answers: list[str], words: str) -> None:
    speaker = Speaker(*answers)
    with (
        speaker.ours as connection,
        pytest.raises(MonitorError, match=words),
    ):
        Monitor(connection).save(Path("/state"))


def test_credentials_become_smbios_strings() -> None:
    options = smbios_options({"a": b"x,y"})
    encoded = base64.b64encode(b"x,y").decode()
    assert options == [
        "-smbios",
        f"type=11,value=io.systemd.credential.binary:a={encoded}",
    ]
    assert "systemd.extra-unit.bootc-agent.service" in agent_credentials()


def test_a_missing_emulator_is_named(tmp_path: Path) -> None:
    with pytest.raises(QemuMissingError, match="usr/bin/qemu-system-x86_64: not found"):
        in_tree(tmp_path)


@pytest.fixture
def ext4_disk(tmp_path: Path) -> Path:
    """A GPT disk whose second partition is ext4 and holds a few files."""
    require.tool("sfdisk")
    require.tool("debugfs")
    content = tmp_path / "content"
    (content / "objects/ab").mkdir(parents=True)
    (content / "images").mkdir()
    (content / "objects/ab/cd").write_bytes(random.Random(1).randbytes(20_000))
    (content / "images/short").symlink_to("../objects/ab/cd")
    (content / "images/long").symlink_to("../objects/ab/" + "./" * 60 + "cd")
    (content / "meta.json").write_text("{}")
    filesystem = disks.from_directory(content, tmp_path / "ext4.img")
    disk = disks.blank(tmp_path / "disk.img", 128 << 20)
    subprocess.run(
        [require.tool("sfdisk"), "-q", str(disk)],
        input=f"label: gpt\nsize=1MiB\nsize=100MiB, type={tamper.ROOT_TYPE}\n",
        text=True,
        check=True,
    )
    with disk.open("r+b") as file:
        file.seek(2 << 20)
        file.write(filesystem.read_bytes())
    return disk


def test_one_byte_on_the_medium_changes(ext4_disk: Path) -> None:
    root = tamper.root_filesystem(ext4_disk)
    assert root.offset_bytes == 2 << 20
    before = root.read("/objects/ab/cd")
    root.flip_byte("/objects/ab/cd", 9000)
    after = root.read("/objects/ab/cd")
    assert [i for i in range(len(before)) if before[i] != after[i]] == [9000]
    assert after[9000] == before[9000] ^ 0xFF


def test_links_are_followed(ext4_disk: Path) -> None:
    root = tamper.root_filesystem(ext4_disk)
    assert root.resolve("/images/short") == "/objects/ab/cd"
    assert root.resolve("/images/long") == "/objects/ab/cd"
    assert root.resolve("/meta.json") == "/meta.json"


def test_a_file_is_replaced(ext4_disk: Path) -> None:
    root = tamper.root_filesystem(ext4_disk)
    root.replace("/objects/ab/cd", b"other")
    root.replace("/meta.json", b"top")
    assert root.read("/objects/ab/cd") == b"other"
    assert root.read("/meta.json") == b"top"


def test_what_is_not_there_cannot_be_tampered_with(ext4_disk: Path, tmp_path: Path) -> None:
    root = tamper.root_filesystem(ext4_disk)
    with pytest.raises(tamper.TamperError, match="no data at 90000"):
        root.flip_byte("/objects/ab/cd", 90_000)
    with pytest.raises(tamper.TamperError, match="not found"):
        root.flip_byte("/objects/none", 0)
    empty = disks.blank(tmp_path / "empty.img", 16 << 20)
    subprocess.run([require.tool("sfdisk"), "-q", str(empty)], input=b"label: gpt\n", check=True)
    with pytest.raises(tamper.TamperError, match=f"no partition of the type {tamper.ROOT_TYPE}"):
        tamper.root_filesystem(empty)


def test_files_of_an_esp_change(tmp_path: Path) -> None:
    require.tool("mcopy")
    disk = disks.blank(tmp_path / "disk.img", 64 << 20)
    subprocess.run(
        [require.tool("sfdisk"), "-q", str(disk)],
        input=f"label: gpt\nstart=2048, size=40MiB, type={tamper.ESP_TYPE}\n",
        text=True,
        check=True,
    )
    argv = [require.tool("mkfs.fat"), "--offset", "2048", str(disk), str(40 << 10)]
    subprocess.run(argv, check=True, capture_output=True)
    esp = tamper.esp(disk)
    esp.write("loader/entries/one two.conf", b"first")
    esp.write("loader/loader.conf", b"timeout 5\n")
    esp.write("loader/entries/one two.conf", b"second")
    assert sorted(esp.files()) == ["loader/entries/one two.conf", "loader/loader.conf"]
    assert esp.read("loader/entries/one two.conf") == b"second"
    esp.remove("loader/loader.conf")
    assert esp.files() == ["loader/entries/one two.conf"]
    with pytest.raises(tamper.TamperError, match=r"^mtype: "):
        esp.read("none")


def test_a_copy_is_sparse(tmp_path: Path) -> None:
    source = disks.blank(tmp_path / "a", 64 << 20)
    target = disks.copy(source, tmp_path / "b")
    assert target.stat().st_size == 64 << 20
    assert os.stat(target).st_blocks * 512 < 1 << 20
