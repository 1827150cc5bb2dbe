"""Finding and reading partitions of a real disk image through the real kernel."""

from __future__ import annotations

import contextlib
import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot.partitions import backing_device, find_esp, is_read_only
from bootc.fs import mounts
from bootc.fs.detached import open_read_only, open_writable
from support import require

pytestmark = pytest.mark.host

TABLE = """\
label: gpt
size=1MiB, type=21686148-6449-6E6F-744E-656564454649
size=8MiB, type=c12a7328-f81f-11d2-ba4b-00a0c93ec93b
type=4f68bce3-e8cd-4db1-96e7-fbcaf984b709
"""


def run(*argv: str, input: str | None = None) -> str:
    done = subprocess.run(argv, input=input, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """Yield a loop device with three partitions, the last of them with an ext4."""
    require.root()
    for tool in ("sfdisk", "losetup", "partx", "mkfs.ext4", "lsblk", "blkid"):
        require.tool(tool)
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(160 << 20)
    run("sfdisk", "--quiet", str(image), input=TABLE)
    with contextlib.ExitStack() as stack:
        device = run("losetup", "--find", "--show", str(image))
        stack.callback(run, "losetup", "--detach", device)
        run("partx", "--add", device)
        stack.callback(run, "partx", "--delete", device)
        run("mkfs.ext4", "-q", f"{device}p3")
        yield device


@pytest.mark.parametrize("fstype", ["ext4", "btrfs"])
def test_from_a_directory_to_the_esp(disk: str, fstype: str) -> None:
    if fstype != "ext4":
        require.tool(f"mkfs.{fstype}")
        run(f"mkfs.{fstype}", "-q", "-f", f"{disk}p3")
    with mounts.mounted(f"{disk}p3", fstype) as root:
        device = backing_device(root)
        assert device == f"{disk}p3"
        assert find_esp(device) == f"{disk}p2"
        assert not is_read_only(device)
    run("blockdev", "--setro", f"{disk}p3")
    assert is_read_only(f"{disk}p3")


def test_reading_leaves_no_trace(disk: str) -> None:
    partition = Path(f"{disk}p3")
    before = partition.read_bytes()
    with open_read_only(f"{disk}p3", "ext4", "errors=continue") as root:
        assert root.names() == ["lost+found"]
        assert not mounts.is_mounted(f"{disk}p3")
        with pytest.raises(OSError, match="Read-only") as caught:
            root.mkdir("x")
        assert caught.value.errno == errno.EROFS
    assert partition.read_bytes() == before


def test_reading_what_is_mounted_for_writing(disk: str) -> None:
    with mounts.mounted(f"{disk}p3", "ext4") as writer:
        writer.mkdir("new")
        with open_read_only(f"{disk}p3", "ext4") as root:
            assert root.names() == ["lost+found", "new"]
            with pytest.raises(OSError, match="Read-only"):
                root.mkdir("x")
        writer.mkdir("newer")


def test_a_partition_without_file_system_is_named(disk: str) -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        open_read_only(f"{disk}p1", "ext4").__enter__()
    assert f"Mounting {disk}p1 (ext4)" in caught.value.__notes__


def test_writing_through_a_mount_of_its_own(disk: str) -> None:
    with open_writable(f"{disk}p3", "ext4") as root:
        root.mkdir("x")
        assert not mounts.is_mounted(f"{disk}p3")
    with open_read_only(f"{disk}p3", "ext4") as root:
        assert root.names() == ["lost+found", "x"]


def test_writing_what_is_mounted(disk: str, tmp_path: Path) -> None:
    place = tmp_path / "boot"
    place.mkdir()
    run("mount", "--options", "ro", f"{disk}p3", str(place))
    try:
        with open_writable(f"{disk}p3", "ext4") as root:
            root.mkdir("x")
            root.sync()
        assert sorted(path.name for path in place.iterdir()) == ["lost+found", "x"]
        with pytest.raises(OSError, match="Read-only"):
            (place / "y").mkdir()
        # It is made writable for everybody, and no longer than it takes.
        with open("/proc/self/mountinfo") as table:
            (line,) = (line for line in table if f" {place} " in line)
        assert line.split()[-1].split(",")[0] == "ro"
        run("mount", "--options", "remount,rw", str(place))
        with open_writable(f"{disk}p3", "ext4") as root:
            root.mkdir("y")
    finally:
        run("umount", str(place))


def test_a_device_that_refuses_writes(disk: str) -> None:
    run("blockdev", "--setro", f"{disk}p3")
    with pytest.raises(OSError, match=r"Read-only|Permission denied") as caught:
        open_writable(f"{disk}p3", "ext4").__enter__()
    assert f"Mounting {disk}p3 (ext4)" in caught.value.__notes__
