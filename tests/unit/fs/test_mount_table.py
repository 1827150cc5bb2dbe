"""Reading the table of mounts; mounting itself is tested with root in tests/host."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.fs.dir import Dir
from bootc.fs.mounts import (
    Mount,
    MountTableError,
    filesystem_of,
    is_mounted,
    parse_mount,
    read_mounts,
)
from bootc.kernel import proc


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            b"21 1 254:0 / / rw,relatime shared:1 master:2 - ext4 /dev/vda1 rw",
            Mount(21, "254:0", "/", "ext4", "/dev/vda1", 1, "/", ("rw",)),
        ),
        (
            rb"22 1 0:30 /a /mnt/x\040y\134040 rw - btrfs /dev/mapper/a\011b rw,subvol=/a",
            Mount(
                22,
                "0:30",
                "/mnt/x y\\040",
                "btrfs",
                "/dev/mapper/a\tb",
                1,
                "/a",
                ("rw", "subvol=/a"),
            ),
        ),
        (
            b"23 1 0:31 / /a\r\x0b\x0c\x1c\x1d\x1e\xc2\x85\xe2\x80\xa8b rw - tmpfs t\r rw",
            Mount(
                23, "0:31", "/a\r\x0b\x0c\x1c\x1d\x1e\x85\u2028b", "tmpfs", "t\r", 1, "/", ("rw",)
            ),
        ),
        (
            rb"24 1 0:32 / /\377\012\043 rw - tmpfs  rw",
            Mount(24, "0:32", "/\udcff\n#", "tmpfs", "", 1, "/", ("rw",)),
        ),
        (b"25 1 0:33 / /a-b rw - a - b rw", Mount(25, "0:33", "/a-b", "a", "-", 1, "/", ("b",))),
    ],
)
def test_parse_mount(line: bytes, expected: Mount) -> None:
    assert parse_mount(line) == expected


@pytest.mark.parametrize(
    "line", [b"", b"21 1 254:0 / / rw ext4 /dev/vda1 rw", b"x 1 0:1 / / rw - a b c", b"21 1 0:1 / "]
)
def test_a_line_that_nobody_knows(line: bytes) -> None:
    with pytest.raises(MountTableError, match=f"mountinfo has a line '{line.decode()}'$"):
        parse_mount(line)


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_bytes(b"a:1\rb: 2\n\x0bc\xff=3:\t4 \nnothing\n\x1ca:5")
    assert proc.read_table(str(table)) == [
        b"a:1\rb: 2",
        b"\x0bc\xff=3:\t4 ",
        b"nothing",
        b"\x1ca:5",
    ]
    assert proc.read_fields(str(table), b":") == {
        b"a": b"1\rb: 2",
        b"c\xff=3": b"4",
        b"\x1ca": b"5",
    }
    (tmp_path / "empty").touch()
    assert proc.read_table(str(tmp_path / "empty")) == []


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
