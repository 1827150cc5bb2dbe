"""GRUB on a disk for BIOS machines: the same bytes as GRUB's own installer writes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.deploy.install import grub_bios
from bootc.deploy.install.loader_installer import BootTarget
from bootc.deploy.install.partition import DiskSizes, create_partitions
from bootc.formats.grubembed import SECTOR_BYTES, GrubImageError, patch_boot, patch_core
from bootc.fs.dir import Dir
from support import grubtree, require
from support.grubtree import GrubTree

pytestmark = pytest.mark.host

MIB = 1 << 20
#: In the tree of GRUB: a core image made as bootc makes it, and GRUB's installer, which puts it on
#: the disk with the directory /boot.
SETUP = """
mount --bind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount -t sysfs sys "$1/sys"
mount "$2" "$1/boot"
cp "$3" "$1/boot/core.img"
cp "$1/usr/lib/grub/i386-pc/boot.img" "$1/boot"
chroot "$1" /usr/lib/grub/i386-pc/grub-bios-setup --no-rs-codes -s -d /boot "$4"
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[str]:
    require.root()
    image = tmp_path / "disk.img"
    with open(image, "wb") as file:
        file.truncate(64 * MIB)
    losetup = [require.tool("losetup"), "--find", "--show", str(image)]
    loop = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout.strip()
    yield loop
    subprocess.run(["partx", "--delete", loop], check=False, capture_output=True)
    subprocess.run(["losetup", "--detach", loop], check=True)


def first_mib(disk: str) -> bytes:
    """Return sector 0, the table and the BIOS boot partition, past the kernel's cache."""
    subprocess.run(["blockdev", "--flushbufs", disk], check=True)
    with open(disk, "rb") as file:
        return file.read(2 * MIB)


@pytest.mark.parametrize("tree", grubtree.TREES, ids=lambda tree: tree.suite)
def test_the_disk_is_as_grub_writes_it(tree: GrubTree, disk: str, tmp_path: Path) -> None:
    root = tree.find()
    made = create_partitions(disk, "x86_64", DiskSizes(esp_mib=None))
    assert made.bios_boot is not None
    subprocess.run(["mkfs.ext4", "-q", made.root.node], check=True)
    with Dir.open(tmp_path) as boot:
        target = BootTarget(disk, boot, "1234-5678", boot, "1234-5678", bios_boot=made.bios_boot)
        with tree.mounted(tmp_path) as image:
            core = grub_bios._make_core(image, target)
            assert b"search --no-floppy --fs-uuid --set=root 1234-5678" not in core, "compressed"
            grub_bios.write_core(image, target)
            blank = first_mib(disk)
            assert blank[:0x1B8] == bytes(0x1B8), "nothing boots before sector 0 is written"
            grub_bios.write_boot_sector(grub_bios.read_boot_image(image), target)
    ours = first_mib(disk)
    (tmp_path / "core.img").write_bytes(core)
    words = [str(root), made.root.node, str(tmp_path / "core.img"), disk]
    subprocess.run(["unshare", "--mount", "sh", "-ec", SETUP, "sh", *words], check=True)
    theirs = first_mib(disk)
    assert ours[:SECTOR_BYTES] == theirs[:SECTOR_BYTES]
    start = made.bios_boot.first_sector * SECTOR_BYTES
    assert ours[start : start + len(core)] == theirs[start : start + len(core)]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(GrubImageError, match="has 1024 bytes, and the BIOS boot partition has 512"):
        patch_core(bytes(1024), 34, 1)
    with pytest.raises(GrubImageError, match="too short"):
        patch_core(bytes(512), 34, 1)
    with pytest.raises(GrubImageError, match=r"not a boot sector"):
        patch_boot(os.urandom(511), bytes(512), 34)
