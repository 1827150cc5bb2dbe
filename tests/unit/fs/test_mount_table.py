"""Reading the table of mounts; mounting itself is tested with root in tests/host."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.fs.dir import Dir
from bootc.fs.mounts import Mount, filesystem_of, is_mounted, parse_mount, read_mounts


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "21 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda1 rw\n",
            Mount(21, "254:0", "/", "ext4", "/dev/vda1", 1, "/"),
        ),
        (
            r"22 1 0:30 /a /mnt/x\040y\134040 rw - btrfs /dev/mapper/a\011b rw,subvol=/a",
            Mount(22, "0:30", "/mnt/x y\\040", "btrfs", "/dev/mapper/a\tb", 1, "/a"),
        ),
    ],
)
def test_parse_mount(line: str, expected: Mount) -> None:
    assert parse_mount(line) == expected


def test_the_real_table_is_read() -> None:
    assert any(mount.path == "/proc" and mount.fstype == "proc" for mount in read_mounts())


def test_filesystem_of() -> None:
    with Dir.open("/proc/self") as proc:
        assert filesystem_of(proc) == "proc"


def test_what_is_no_device_is_not_mounted(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    assert not is_mounted(str(tmp_path / "f"))
    with pytest.raises(FileNotFoundError):
        is_mounted(str(tmp_path / "missing"))
