"""What is looked up about a block device, with nodes that only root can make."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from bootc.deploy.install import partition
from bootc.deploy.install.partition import PartitioningFailed
from bootc.deploy.install.request import InstallRefused
from bootc.deploy.install.target_disk import Device, inspect
from bootc.fs.process import CommandFailed
from support import require
from support.commands import Commands

pytestmark = pytest.mark.host

ESP_TYPE = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
ROOT_TYPE = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
#: Mode and number of a node without a device.
NOTHING_BEHIND_IT = (stat.S_IFBLK | 0o600, os.makedev(4000, 0))


@pytest.fixture(autouse=True, scope="module")
def _only_as_root() -> None:
    require.root()


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(tmp_path / "bin", monkeypatch)


@pytest.fixture
def node(tmp_path: Path) -> str:
    """A block device node with nothing behind it."""
    path = tmp_path / "vda"
    os.mknod(path, *NOTHING_BEHIND_IT)
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


def test_lsblk_talks_nonsense(commands: Commands, node: str) -> None:
    commands.mock("lsblk", "echo '{'")
    with pytest.raises(CommandFailed, match="not JSON") as caught:
        inspect(node)
    assert caught.value.__notes__ == [f"Inspecting {node}"]


def test_partitions_that_never_appear(
    commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "_NODE_TIMEOUT_S", 0.2)
    # A node that is there but behind which there is nothing, as an old table leaves them.
    os.mknod(tmp_path / "root", *NOTHING_BEHIND_IT)
    commands.mock(
        "sfdisk",
        f"""[ "$1" = --json ] && echo '{{"partitiontable": {{"partitions": [
            {{"node": "{tmp_path}/esp", "size": 8, "type": "{ESP_TYPE}"}},
            {{"node": "{tmp_path}/root", "size": 8, "type": "{ROOT_TYPE}"}}]}}}}' || true""",
    )
    partx = commands.mock("partx", "exit 1")
    with pytest.raises(PartitioningFailed, match=f"{tmp_path}/esp did not appear"):
        partition.create_partitions("/dev/vda", "x86_64", partition.DiskSizes())
    assert partx.calls[0] == ["--update", "/dev/vda"]
