"""Disks that somebody used before: whatever is left on them is seen, and wiped if asked for.

Signatures are the real tools' where Debian 12 has them, and bytes that ``wipefs`` itself
takes for the format elsewhere; each test begins with its word for what there is.
"""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootc.deploy.install.partition import DiskSizes, create_partitions
from bootc.deploy.install.request import InstallRefused
from bootc.deploy.install.target_disk import check_may_be_written, inspect, wipe
from support import require

pytestmark = pytest.mark.host

MIB = 1 << 20
SIZE = 2048 * MIB
BLANK_START = 2 * MIB


def run(*argv: str, input: bytes = b"") -> str:
    done = subprocess.run(argv, check=True, capture_output=True, input=input)
    return done.stdout.decode()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    """A blank disk of 2 GiB; the kernel does not scan it for partitions."""
    require.root()
    image = tmp_path / "disk.img"
    with open(image, "wb") as file:
        file.truncate(SIZE)
    loop = run(require.tool("losetup"), "--find", "--show", str(image)).strip()
    try:
        yield loop
    finally:
        subprocess.run(["partx", "--delete", loop], check=False, capture_output=True)
        run("losetup", "--detach", loop)


def signatures(path: str) -> set[str]:
    return set(run("wipefs", "--noheadings", "--output", "TYPE", path).split())


def write(path: str, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def table(label: str) -> Callable[[str], None]:
    def make(disk: str) -> None:
        run("sfdisk", "--quiet", disk, input=f"label: {label}\n,100M\n,100M\n".encode())
        subprocess.run(["partx", "--delete", disk], check=False, capture_output=True)

    return make


def without_start(make: Callable[[str], None]) -> Callable[[str], None]:
    def damaged(disk: str) -> None:
        make(disk)
        write(disk, 0, bytes(BLANK_START))

    return damaged


def without_end(make: Callable[[str], None]) -> Callable[[str], None]:
    def damaged(disk: str) -> None:
        make(disk)
        write(disk, SIZE - MIB, bytes(MIB))

    return damaged


def tool(*argv: str) -> Callable[[str], None]:
    def make(disk: str) -> None:
        require.tool(argv[0])
        run(*argv, disk)

    return make


def protective_mbr(disk: str) -> None:
    table("gpt")(disk)
    write(disk, 512, bytes(BLANK_START))
    write(disk, SIZE - MIB, bytes(MIB))


def lvm(disk: str) -> None:
    label = struct.pack("<I8s32sQ", 32, b"LVM2 001", b"a" * 32, SIZE).ljust(512 - 20, b"\0")
    seed = 0xF597A6CF ^ 0xFFFFFFFF
    checksum = zlib.crc32(label, seed) ^ 0xFFFFFFFF
    write(disk, 512, struct.pack("<8sQI", b"LABELONE", 1, checksum) + label)


def raid_at_the_end(disk: str) -> None:
    """Metadata 1.0 of md: 8 to 12 KiB before the end."""
    sector = (SIZE // 512 - 16) & ~7
    block = bytearray(256)
    struct.pack_into("<III", block, 0, 0xA92B4EFC, 1, 0)
    block[16:32] = b"u" * 16
    struct.pack_into("<Q", block, 144, sector)
    total = sum(struct.unpack("<64I", block))
    struct.pack_into("<I", block, 216, (total & 0xFFFFFFFF) + (total >> 32))
    write(disk, sector * 512, bytes(block))


def luks(disk: str) -> None:
    write(disk, 0, b"LUKS\xba\xbe" + struct.pack(">H", 1))
    write(disk, 168, b"01234567-89ab-cdef-0123-456789abcdef")


def zfs(disk: str) -> None:
    """Two of the four labels are at the end."""
    for label in (0, 256 << 10, SIZE - (512 << 10), SIZE - (256 << 10)):
        for number in range(8):
            offset = label + (128 << 10) + number * 1024
            write(disk, offset, struct.pack("<QQQ", 0x00BAB10C, 5000, number))


def iso(disk: str) -> None:
    write(disk, 0x8000, b"\x01CD001\x01".ljust(2048, b"\0"))


def hybrid_iso(disk: str) -> None:
    table("dos")(disk)
    iso(disk)


PARTITIONS = "partitions"
#: What makes it, what wipefs calls it, and what is refused.
ODD = {
    "gpt": (table("gpt"), {"PMBR", "gpt"}, PARTITIONS),
    "backup gpt": (without_start(table("gpt")), {"gpt"}, PARTITIONS),
    "primary gpt": (without_end(table("gpt")), {"PMBR", "gpt"}, PARTITIONS),
    "protective mbr": (protective_mbr, {"PMBR"}, PARTITIONS),
    "dos": (table("dos"), {"dos"}, PARTITIONS),
    "btrfs": (tool("mkfs.btrfs", "-q"), {"btrfs"}, "data (btrfs)"),
    "xfs": (tool("mkfs.xfs", "-q"), {"xfs"}, "data (xfs)"),
    "swap": (tool("mkswap"), {"swap"}, "data (swap)"),
    "fat": (tool("mkfs.fat"), {"vfat"}, "data (vfat)"),
    "lvm": (lvm, {"LVM2_member"}, "data (LVM2_member)"),
    "raid": (raid_at_the_end, {"linux_raid_member"}, "data (linux_raid_member)"),
    "luks": (luks, {"crypto_LUKS"}, "data (crypto_LUKS)"),
    "zfs": (zfs, {"zfs_member"}, "data (zfs_member)"),
    "zfs at the end": (without_start(zfs), {"zfs_member"}, "data (zfs_member)"),
    "iso": (iso, {"iso9660"}, "data (iso9660)"),
    "hybrid iso": (hybrid_iso, {"dos", "iso9660"}, PARTITIONS),
    "raid and gpt": (
        lambda disk: [without_end(table("gpt"))(disk), raid_at_the_end(disk)],
        {"PMBR", "gpt", "linux_raid_member"},
        PARTITIONS,
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_left_on_a_disk(disk: str, name: str) -> None:
    make, kinds, refused = ODD[name]
    make(disk)
    assert signatures(disk) == kinds

    with pytest.raises(InstallRefused) as caught:
        check_may_be_written(inspect(disk), wipe=False, machine="x86_64")
    assert caught.value.message == (
        f"Detected existing {refused} on {disk}; "
        "use e.g. `wipefs` or --wipe if you intend to overwrite"
    )
    check_may_be_written(inspect(disk), wipe=True, machine="x86_64")

    wipe(inspect(disk))
    assert signatures(disk) == set()
    check_may_be_written(inspect(disk), wipe=False, machine="x86_64")


def test_old_contents_do_not_show_through(disk: str) -> None:
    """Where new partitions begin there was another file system once."""
    layout = create_partitions(disk, "x86_64", DiskSizes())
    nodes = [f"{disk}p1", layout.esp.node, layout.root.node]
    for node in nodes:
        with open(node, "r+b") as file:
            file.seek(0x8000)
            file.write(b"\x01CD001\x01".ljust(2048, b"\0"))
        assert signatures(node) == {"iso9660"}
    subprocess.run(["partx", "--delete", disk], check=True)
    write(disk, 0, bytes(MIB))
    write(disk, SIZE - MIB, bytes(MIB))
    create_partitions(disk, "x86_64", DiskSizes())
    for node in nodes:
        assert signatures(node) == set()
