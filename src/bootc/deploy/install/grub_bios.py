"""Embeds GRUB in a disk for BIOS machines.

GRUB's own installer asks the system for its disks, and an image that is mounted as an overlay
gives it no answer. Therefore ``grub-mkimage`` of the image makes the program, and this module
writes it. The program has all the modules that it needs and reads none from the disk.

Promises: :func:`write_core` changes only the BIOS boot partition, which nothing starts until
:func:`write_boot_sector` has written sector 0.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bootc.boot import grub
from bootc.deploy.install.image_mounts import mount_temporary
from bootc.deploy.install.loader_installer import BootTarget, ImageNeed
from bootc.deploy.install.partition import Partition
from bootc.errors import Error, doing
from bootc.formats import grubembed
from bootc.formats.grubembed import SECTOR_BYTES
from bootc.fs import atomic, process
from bootc.fs.dir import Dir

_PLATFORM = "usr/lib/grub/i386-pc"
_BOOT_IMAGE = f"{_PLATFORM}/boot.img"
_MKIMAGE = "usr/bin/grub-mkimage"
NEEDS = (ImageNeed((_BOOT_IMAGE,), "grub-pc-bin"), ImageNeed((_MKIMAGE,), "grub-common"))
#: What the program needs to find the static configuration and to do what it says.
_MODULES = (
    *("biosdisk", "part_gpt", "part_msdos", "ext2", "btrfs", "xfs", "fat"),
    *("search", "search_fs_uuid", "search_label", "normal", "configfile", "linux", "chain"),
    *("test", "true", "regexp", "loadenv", "echo", "sleep", "ls", "minicmd", "reboot", "halt"),
    *("serial", "terminal", "password_pbkdf2"),
)
#: The boot code in sector 0; the signature of the disk and the partition table follow.
_BOOT_CODE_BYTES = 440
_EARLY, _CORE = "early.cfg", "core.img"
_MAX_CORE_BYTES = 4 << 20
#: It compresses 200 kB.
_TIMEOUT_S = 120.0


def is_there(has: Callable[[str], bool]) -> bool:
    """Tell whether an image has GRUB for a BIOS; ``has`` tells whether it has a file."""
    return all(has(path) for need in NEEDS for path in need.paths)


def write_core(image: Dir, target: BootTarget) -> None:
    """Make GRUB's program and write it to the BIOS boot partition. It is on the disk afterwards.

    Raises:
        CommandFailed: ``grub-mkimage`` of the image failed.
        GrubImageError: the program does not fit.
        Error, OSError: reading or writing failed.
    """
    partition = _bios_boot_of(target)
    core = grubembed.patch_core(
        _make_core(image, target), partition.first_sector, partition.sectors
    )
    with doing(f"Writing GRUB to {partition.node}"), _opened(partition.node) as fd:
        _write(fd, core)


def write_boot_sector(image_boot: bytes, target: BootTarget) -> None:
    """Write GRUB's boot code to sector 0, from where the firmware starts it.

    Args:
        image_boot: The result of :func:`read_boot_image`.
        target: The disk.

    Raises:
        GrubImageError: the boot code of the image is not a boot sector.
        OSError: reading or writing failed.
    """
    sector = _bios_boot_of(target).first_sector
    with doing(f"Writing GRUB to the first sector of {target.disk}"), _opened(target.disk) as fd:
        present = os.pread(fd, SECTOR_BYTES, 0)
        _write(fd, grubembed.patch_boot(image_boot, present, sector))


def read_boot_image(image: Dir) -> bytes:
    """Return the boot code of the image.

    Raises:
        OSError: it cannot be read.
    """
    return image.read_bytes(_BOOT_IMAGE, SECTOR_BYTES)


def has_boot_code(disk: str) -> bool:
    """Tell whether sector 0 of a disk has boot code. A new partition table has none.

    Args:
        disk: The path of the disk, or of the image of a disk.

    Raises:
        OSError: it cannot be read.
    """
    with doing(f"Reading the first sector of {disk}"), open(disk, "rb") as file:
        return any(file.read(_BOOT_CODE_BYTES))


def _bios_boot_of(target: BootTarget) -> Partition:
    partition = target.bios_boot
    if partition is None:
        raise Error(f"{target.disk} has no BIOS boot partition")
    if partition.size_bytes != partition.sectors * SECTOR_BYTES:
        raise Error(
            f"GRUB cannot start from {target.disk} with a BIOS: its sectors do not have "
            f"{SECTOR_BYTES} bytes"
        )
    return partition


def _make_core(image: Dir, target: BootTarget) -> bytes:
    with doing("Making GRUB's program"):
        mount_temporary(image)
        with image.open_dir("tmp") as directory:
            early = grub.early_config(target.boot_uuid, separate_boot=target.separate_boot)
            atomic.write_file(directory, _EARLY, early, durable=False)
            argv = [f"/{_MKIMAGE}", "--format=i386-pc"]
            argv += [f"--directory=/{_PLATFORM}", f"--output=/tmp/{_CORE}"]
            argv += ["--prefix=/boot/grub2", f"--config=/tmp/{_EARLY}"]
            process.run_in_root(image.path, [*argv, *_MODULES], timeout_s=_TIMEOUT_S)
            return directory.read_bytes(_CORE, _MAX_CORE_BYTES)


@contextmanager
def _opened(device: str) -> Iterator[int]:
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _write(fd: int, data: bytes) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(fd, data[written:], written)
    os.fsync(fd)
