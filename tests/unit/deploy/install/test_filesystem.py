from __future__ import annotations

import subprocess
import uuid
from pathlib import Path

import pytest

from bootc.deploy.install.filesystem import (
    Filesystem,
    UnknownFilesystem,
    make_esp,
    make_root,
    mkfs_argv,
)
from bootc.fs.process import CommandFailed, ToolMissing
from support import require
from support.commands import Commands

UUID = uuid.UUID("0b1c2d3e-4f50-4162-8384-95a6b7c8d9e0")


@pytest.mark.parametrize(
    ("name", "argv"),
    [
        ("ext4", f"mkfs.ext4 -q -b 4096 -m 1 -U {UUID} -O verity -L root /dev/vda3"),
        ("btrfs", f"mkfs.btrfs -q -f -U {UUID} -L root /dev/vda3"),
        ("xfs", f"mkfs.xfs -q -f -m uuid={UUID} -L root /dev/vda3"),
    ],
)
def test_how_each_is_made(name: str, argv: str) -> None:
    assert mkfs_argv(Filesystem.named(name), "/dev/vda3", UUID) == argv.split()


def test_which_have_verity() -> None:
    assert {fs.value for fs in Filesystem if fs.supports_verity} == {"ext4", "btrfs"}


@pytest.mark.parametrize("name", ["", "ext3", "vfat", "EXT4", "../ext4"])
def test_unknown_ones(name: str) -> None:
    with pytest.raises(UnknownFilesystem, match=f"^Unknown filesystem: {name}$") as caught:
        Filesystem.named(name)
    assert caught.value.hint == "one of xfs, ext4, btrfs"


def test_the_root_gets_the_uuid_that_is_returned(commands: Commands) -> None:
    mkfs = commands.mock("mkfs.ext4")
    fs_uuid = make_root(Filesystem.EXT4, "/dev/vda3")
    assert mkfs.calls == [
        [
            "-q",
            "-b",
            "4096",
            "-m",
            "1",
            "-U",
            str(fs_uuid),
            "-O",
            "verity",
            "-L",
            "root",
            "/dev/vda3",
        ],
    ]


@pytest.mark.parametrize(
    ("mib", "sector_bytes", "options"),
    [
        (1024, 512, ["-F", "32"]),
        (128, 512, ["-F", "32"]),
        (128, 4096, []),
        (512, 4096, ["-F", "32"]),
    ],
)
def test_the_esp(commands: Commands, mib: int, sector_bytes: int, options: list[str]) -> None:
    mkfs = commands.mock("mkfs.fat")
    make_esp("/dev/vda2", (mib << 20) // sector_bytes)
    assert mkfs.calls == [[*options, "-n", "EFI-SYSTEM", "/dev/vda2"]]


@pytest.mark.parametrize(("mib", "sector_bytes"), [(128, 512), (274, 4096)])
def test_the_smallest_esps_are_whole(tmp_path: Path, mib: int, sector_bytes: int) -> None:
    """The real programs: fsck.fat complains of a FAT32 with too few clusters."""
    image = tmp_path / "esp"
    with open(image, "wb") as file:
        file.truncate(mib << 20)
    argv = [require.tool("mkfs.fat"), "-S", str(sector_bytes), "-F", "32", str(image)]
    subprocess.run(argv, check=True, capture_output=True)
    argv = [require.tool("fsck.fat"), "-n", str(image)]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    assert "less than the required minimum" not in done.stdout + done.stderr


def test_a_tool_that_fails_is_quoted(commands: Commands) -> None:
    commands.mock("mkfs.fat", "echo 'mkfs.fat: Attempting to create a too small' >&2; exit 1")
    with pytest.raises(CommandFailed, match="too small") as caught:
        make_esp("/dev/vda2", 1 << 20)
    assert caught.value.__notes__ == ["Creating the EFI system partition on /dev/vda2"]


def test_a_missing_tool_names_its_package(commands: Commands) -> None:
    commands.hide_system()
    with pytest.raises(ToolMissing, match=r"mkfs\.btrfs is not installed") as caught:
        make_root(Filesystem.BTRFS, "/dev/vda3")
    assert caught.value.hint == "on Debian it is in the package btrfs-progs"
