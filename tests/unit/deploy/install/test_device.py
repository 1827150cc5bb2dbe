from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from bootc.deploy.install.device import Device, check_may_be_written, inspect
from bootc.deploy.install.request import InstallRefused
from bootc.fs.process import CommandFailed
from support import require
from support.commands import Commands


@pytest.fixture
def node(tmp_path: Path) -> str:
    """A block device node with nothing behind it."""
    require.root()
    path = tmp_path / "vda"
    os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(4000, 0))
    return str(path)


def test_what_lsblk_tells(commands: Commands, node: str) -> None:
    part = {"path": "/dev/vda1", "type": "part", "size": 1048576, "ro": False}
    volume = {"path": "/dev/mapper/x", "type": "crypt", "size": 1, "ro": False}
    disk = {"path": "/dev/vda", "type": "disk", "size": 8589934592, "ro": False}
    disk |= {"model": "QEMU", "serial": "target", "children": [part | {"children": [volume]}]}
    commands.mock("lsblk", f"echo '{json.dumps({'blockdevices': [disk]})}'")
    assert inspect(node) == Device(
        "/dev/vda", "disk", 8589934592, False, "QEMU", "target", ("/dev/vda1",)
    )


def test_a_partition_is_no_disk(commands: Commands, node: str) -> None:
    part = {"path": "/dev/vda1", "type": "part", "size": 1, "ro": False}
    commands.mock("lsblk", f"echo '{json.dumps({'blockdevices': [part]})}'")
    with pytest.raises(InstallRefused, match=f"^Not a whole disk: {node} is a partition$"):
        inspect(node)


@pytest.mark.parametrize("kind", ["file", "directory", "character device"])
def test_what_is_no_block_device(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "x")
    if kind == "file":
        (tmp_path / "x").write_bytes(b"")
    elif kind == "directory":
        (tmp_path / "x").mkdir()
    else:
        path = os.devnull
    with pytest.raises(InstallRefused, match=f"^Not a block device: {path}$"):
        inspect(path)


def test_nothing_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        inspect(str(tmp_path / "vdz"))
    assert caught.value.filename == str(tmp_path / "vdz")


def test_lsblk_talks_nonsense(commands: Commands, node: str) -> None:
    commands.mock("lsblk", "echo '{'")
    with pytest.raises(CommandFailed, match="not JSON") as caught:
        inspect(node)
    assert caught.value.__notes__ == [f"Inspecting {node}"]


def test_read_only_disks() -> None:
    disk = Device("/dev/sr0", "rom", 1 << 30, True, None, None, ())
    with pytest.raises(InstallRefused, match=r"^Device /dev/sr0 is read-only$"):
        check_may_be_written(disk, wipe=True)
