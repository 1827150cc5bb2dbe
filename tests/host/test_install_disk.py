"""Disks as the kernel has them: what is refused, what is written, what is left after a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot import kernel_release
from bootc.deploy.install import target_disk
from bootc.deploy.install.checks_disk import plan_disk
from bootc.deploy.install.filesystem import Filesystem, lacks_verity, make_esp, make_root
from bootc.deploy.install.partition import DiskSizes, create_partitions, mark_finished, read_table
from bootc.deploy.install.request import DiskRequest, InstallRefused
from bootc.deploy.install.target_disk import (
    BlankUnlessKept,
    StillInUse,
    check_may_be_written,
    inspect,
    wipe,
)
from bootc.events import Event, Message
from bootc.formats.imgref import ImageReference
from bootc.fs import mounts
from bootc.fs.interruption import ENDING
from support import children, require
from support.commands import Commands

pytestmark = pytest.mark.host

MIB = 1 << 20
IMAGE = ImageReference("registry", "example.com/os:1")


def run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A blank disk of 2 GiB; the kernel does not scan it for partitions."""
    require.root()
    image = tmp_path / "disk.img"
    with open(image, "wb") as file:
        file.truncate(2048 * MIB)
    loop = run(require.tool("losetup"), "--find", "--show", str(image)).strip()
    try:
        yield loop
    finally:
        subprocess.run(["partx", "--delete", loop], check=False, capture_output=True)
        run("losetup", "--detach", loop)


def signatures(path: str) -> list[str]:
    return run("wipefs", "--noheadings", "--output", "TYPE", path).split()


def test_a_blank_disk(disk: str) -> None:
    found = inspect(disk)
    assert found.path == disk
    assert found.kind == "loop"
    assert found.size_bytes == 2048 * MIB
    assert found.partitions == ()
    check_may_be_written(found, wipe=False, machine="x86_64")


def test_a_link_to_the_disk(disk: str, tmp_path: Path) -> None:
    (tmp_path / "by-id").symlink_to(disk)
    assert inspect(str(tmp_path / "by-id")).path == disk


def test_partitions_are_made_where_the_kernel_does_not_scan(disk: str) -> None:
    layout = create_partitions(disk, "x86_64", DiskSizes())

    assert (layout.esp.node, layout.root.node) == (f"{disk}p2", f"{disk}p3")
    assert layout.esp.size_bytes == 1024 * MIB
    assert 1020 * MIB <= layout.root.size_bytes <= 1022 * MIB
    assert [row.type for row in read_table(disk)] == [
        "21686148-6449-6e6f-744e-656564454649",
        "c12a7328-f81f-11d2-ba4b-00a0c93ec93b",
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
    ]
    with open(layout.root.node, "rb") as node:
        assert node.seek(0, os.SEEK_END) == layout.root.size_bytes
    assert inspect(disk).partitions == (f"{disk}p1", f"{disk}p2", f"{disk}p3")


def test_the_size_of_the_root_is_what_was_asked_for(disk: str) -> None:
    assert create_partitions(disk, "x86_64", DiskSizes(300)).root.size_bytes == 300 * MIB


def test_nodes_of_an_older_table_are_not_taken_for_the_new_ones(disk: str) -> None:
    create_partitions(disk, "aarch64", DiskSizes(500))
    layout = create_partitions(disk, "x86_64", DiskSizes(300))
    with open(layout.root.node, "rb") as node:
        assert node.seek(0, os.SEEK_END) == 300 * MIB
    with open(layout.esp.node, "rb") as node:
        assert node.seek(0, os.SEEK_END) == 1024 * MIB


def test_partitions_are_not_overwritten_unasked(disk: str) -> None:
    layout = create_partitions(disk, "x86_64", DiskSizes())
    mark_finished(disk, layout.root)
    # Found on the disk itself, also when the kernel has not been told of them.
    run("partx", "--delete", disk)
    with pytest.raises(InstallRefused, match=f"^Detected existing partitions on {disk}; use e.g."):
        check_may_be_written(inspect(disk), wipe=False, machine="x86_64")
    check_may_be_written(inspect(disk), wipe=True, machine="x86_64")


def test_a_killed_installation_is_overwritten_unasked(disk: str) -> None:
    layout = create_partitions(disk, "x86_64", DiskSizes())
    make_root(Filesystem.EXT4, layout.root.node)
    assert check_may_be_written(inspect(disk), wipe=False, machine="x86_64")
    run("partx", "--delete", disk)
    assert check_may_be_written(inspect(disk), wipe=False, machine="x86_64")
    assert not check_may_be_written(inspect(disk), wipe=True, machine="x86_64")


def test_a_partition_gets_its_name_while_it_is_mounted(disk: str) -> None:
    layout = create_partitions(disk, "x86_64", DiskSizes())
    make_root(Filesystem.EXT4, layout.root.node)
    with mounts.mounted(layout.root.node, "ext4"):
        mark_finished(disk, layout.root)
        assert [row.name for row in read_table(disk)] == ["BIOS-BOOT", "EFI-SYSTEM", "root"]


def test_an_empty_table_is_not_worth_keeping(disk: str) -> None:
    subprocess.run(["sfdisk", disk], input=b"label: gpt\n", check=True, capture_output=True)
    check_may_be_written(inspect(disk), wipe=False, machine="x86_64")


def test_a_file_system_without_partitions_is_not_overwritten_unasked(disk: str) -> None:
    run("mkfs.ext4", "-q", disk, "64M")
    with pytest.raises(InstallRefused, match=rf"^Detected existing data \(ext4\) on {disk};"):
        check_may_be_written(inspect(disk), wipe=False, machine="x86_64")
    check_may_be_written(inspect(disk), wipe=True, machine="x86_64")


def test_a_mounted_disk_is_refused_even_with_wipe(disk: str) -> None:
    run("mkfs.ext4", "-q", disk, "64M")
    with (
        mounts.mounted(disk, "ext4"),
        pytest.raises(InstallRefused, match=f"^Device {disk} is mounted$"),
    ):
        check_may_be_written(inspect(disk), wipe=True, machine="x86_64")


def test_a_disk_with_a_mounted_partition_is_refused(disk: str) -> None:
    layout = create_partitions(disk, "x86_64", DiskSizes())
    make_root(Filesystem.EXT4, layout.root.node)
    with (
        mounts.mounted(layout.root.node, "ext4"),
        pytest.raises(InstallRefused, match=f"^Device {disk} is mounted$") as caught,
    ):
        check_may_be_written(inspect(disk), wipe=True, machine="x86_64")
    assert caught.value.hint == f"its partition {layout.root.node} is"


def test_a_disk_that_something_claims_is_refused(disk: str) -> None:
    claim = os.open(disk, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(InstallRefused, match=f"^Device {disk} is in use$"):
            check_may_be_written(inspect(disk), wipe=True, machine="x86_64")
    finally:
        os.close(claim)


def test_file_systems_are_made_as_asked(disk: str) -> None:
    require.tool("mkfs.fat")
    layout = create_partitions(disk, "x86_64", DiskSizes())
    fs_uuid = make_root(Filesystem.EXT4, layout.root.node)
    make_esp(layout.esp.node, layout.esp.sectors)

    root = run("blkid", "--probe", "--output", "export", layout.root.node).splitlines()
    assert {"TYPE=ext4", "LABEL=root", f"UUID={fs_uuid}"} <= set(root)
    assert "verity" in run("tune2fs", "-l", layout.root.node)
    esp = run("blkid", "--probe", "--output", "export", layout.esp.node).splitlines()
    assert {"TYPE=vfat", "LABEL=EFI-SYSTEM", "VERSION=FAT32"} <= set(esp)
    with mounts.mounted(layout.root.node, "ext4") as root_dir:
        assert root_dir.stat(".").st_mode & 0o7777 == 0o755


def test_old_contents_do_not_stop_a_file_system(disk: str) -> None:
    layout = create_partitions(disk, "x86_64", DiskSizes())
    make_root(Filesystem.EXT4, layout.root.node)
    again = make_root(Filesystem.EXT4, layout.root.node)
    assert f"UUID={again}" in run("blkid", "--probe", "--output", "export", layout.root.node)


def test_wiping_leaves_a_blank_disk(disk: str) -> None:
    layout = create_partitions(disk, "x86_64", DiskSizes())
    make_root(Filesystem.EXT4, layout.root.node)

    wipe(inspect(disk))

    assert signatures(disk) == []
    assert inspect(disk).partitions == ()
    check_may_be_written(inspect(disk), wipe=False, machine="x86_64")
    layout = create_partitions(disk, "x86_64", DiskSizes())
    assert signatures(layout.root.node) == []


def test_wiping_waits_for_whoever_still_looks_at_a_partition(disk: str) -> None:
    node = create_partitions(disk, "x86_64", DiskSizes()).root.node
    held = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    release = threading.Timer(1.0, os.close, (held,))
    release.start()
    wipe(inspect(disk))
    assert release.finished.is_set()
    assert inspect(disk).partitions == ()


def test_wiping_gives_up_on_a_partition_that_stays_in_use(
    disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = create_partitions(disk, "x86_64", DiskSizes()).root.node
    monkeypatch.setattr(target_disk, "_FORGET_TIMEOUT_S", 0.5)
    with (
        open(node, "rb"),
        pytest.raises(StillInUse, match=f"^the partition {node} is still in use"),
    ):
        wipe(inspect(disk))


def test_wiping_a_blank_disk(disk: str) -> None:
    wipe(inspect(disk))
    wipe(inspect(disk))
    assert signatures(disk) == []


def fail_after_formatting(disk: str, failure: type[BaseException]) -> None:
    layout = create_partitions(disk, "x86_64", DiskSizes())
    make_root(Filesystem.EXT4, layout.root.node)
    with mounts.mounted(layout.root.node, "ext4"):
        raise failure


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_a_blank_disk(disk: str, failure: type[BaseException]) -> None:
    events: list[Event] = []
    with pytest.raises(failure), BlankUnlessKept(inspect(disk), events.append):
        fail_after_formatting(disk, failure)

    assert signatures(disk) == []
    assert events == [Message(f"Wiped device {disk} after the failure")]
    check_may_be_written(inspect(disk), wipe=False, machine="x86_64")


#: Holds a half-made installation until it is interrupted.
HALF_AN_INSTALLATION = """
import sys, time
from bootc.deploy.install.target_disk import BlankUnlessKept, inspect
from bootc.deploy.install.filesystem import Filesystem, make_root
from bootc.deploy.install.partition import DiskSizes, create_partitions
from bootc.fs import interruption, mounts
interruption.raise_when_interrupted()
disk = sys.argv[1]
mounts.private_mount_namespace()
with BlankUnlessKept(inspect(disk), print):
    layout = create_partitions(disk, "x86_64", DiskSizes())
    make_root(Filesystem.EXT4, layout.root.node)
    with mounts.mounted(layout.root.node, "ext4"):
        print("half", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_each_signal_leaves_a_blank_disk(disk: str, number: signal.Signals) -> None:
    """A terminal that closes sends SIGHUP, and its shell sends another one."""
    argv = [sys.executable, "-c", HALF_AN_INSTALLATION, disk]
    with children.running(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.send_signal(number)
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=60)
    assert err.splitlines()[-1] == b"KeyboardInterrupt"
    assert signatures(disk) == []
    check_may_be_written(inspect(disk), wipe=False, machine="x86_64")


def keep_then_fail(disk: str, events: list[Event]) -> None:
    with BlankUnlessKept(inspect(disk), events.append) as kept:
        create_partitions(disk, "x86_64", DiskSizes())
        kept.keep()
        raise RuntimeError


def test_a_failure_after_the_commit_point_changes_nothing(disk: str) -> None:
    events: list[Event] = []
    with pytest.raises(RuntimeError):
        keep_then_fail(disk, events)
    assert len(read_table(disk)) == 3
    assert events == []


@pytest.mark.parametrize("threads", [0, 1])
def test_an_interruption_waits_for_the_wiping(
    disk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    """Ctrl-C during the clean-up is heard, but only when the disk is blank.

    Also where another thread takes the signal, as one that draws progress may.
    """
    real = require.tool("wipefs")
    done = threading.Event()
    for _ in range(threads):
        threading.Thread(target=done.wait).start()
    commands = Commands(tmp_path / "bin", monkeypatch)
    fake = commands.mock("wipefs", f'kill -INT "$PPID"; exec {real} "$@"')
    # A shell without job control lets what it starts in the background ignore Ctrl-C.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), BlankUnlessKept(inspect(disk), lambda _: None):
            fail_after_formatting(disk, RuntimeError)
    finally:
        done.set()
        signal.signal(signal.SIGINT, inherited)
    assert len(fake.calls) == 4
    assert run(real, "--noheadings", disk) == ""


def test_the_preflight_of_a_good_disk(
    disk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only looked for, never run; Debian has it in different packages.
    Commands(tmp_path / "bin", monkeypatch).mock("bootctl")
    request = DiskRequest(
        device=disk,
        source=IMAGE,
        target=IMAGE,
        bootloader="systemd",
        filesystem="ext4",
        allow_missing_verity=True,
    )
    if "vfat" not in Path("/proc/filesystems").read_text():
        with pytest.raises(InstallRefused, match=r"^the running kernel cannot mount vfat$"):
            plan_disk(request, None, "x86_64")
        return
    plan = plan_disk(request, None, "x86_64")
    assert plan.device.path == disk
    assert plan.discoverable
    assert plan.decisions.allow_missing_verity


def test_a_kernel_that_cannot_mount_images_is_told_before_the_disk_is_touched(
    disk: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Commands(tmp_path / "bin", monkeypatch).mock("bootctl")
    real = os.uname()
    old = os.uname_result((real.sysname, real.nodename, "6.1.0-41-amd64", "", real.machine))
    monkeypatch.setattr(os, "uname", lambda: old)
    monkeypatch.setattr(kernel_release, "_running_config", lambda root, release: None)
    request = DiskRequest(
        device=disk, source=IMAGE, target=IMAGE, bootloader="systemd", filesystem="ext4", wipe=True
    )
    run("mkfs.ext4", "-q", disk, "64M")
    with pytest.raises(InstallRefused, match=r"^the running kernel 6\.1\.0-41-amd64 cannot mount"):
        plan_disk(request, None, "x86_64")
    assert signatures(disk) == ["ext4"]


def test_uuid_of_the_table_is_fresh(disk: str) -> None:
    create_partitions(disk, "x86_64", DiskSizes())
    first = uuid.UUID(run("sfdisk", "--disk-id", disk).strip())
    create_partitions(disk, "x86_64", DiskSizes())
    assert uuid.UUID(run("sfdisk", "--disk-id", disk).strip()) != first


def test_whether_an_ext4_can_have_verity(tmp_path: Path) -> None:
    path = tmp_path / "ext4"
    for feature, words in (("^verity", "lacks the feature verity"), ("verity", None)):
        path.unlink(missing_ok=True)
        with open(path, "wb") as file:
            file.truncate(16 * MIB)
        mkfs = [require.tool("mkfs.ext4"), "-q", "-b", "4096", "-O", feature, str(path)]
        subprocess.run(mkfs, check=True)
        reason = lacks_verity(Filesystem.EXT4, str(path))
        assert (reason is None) if words is None else (words in str(reason))
    with open(path, "r+b") as file:
        file.seek(1024 + 24)
        file.write(bytes(4))
    assert "has blocks of 1024 bytes" in str(lacks_verity(Filesystem.EXT4, str(path)))
    assert lacks_verity(Filesystem.BTRFS, "/none") is None
    assert lacks_verity(Filesystem.XFS, "/none") == "xfs has no fs-verity"
