"""GRUB's program for BIOS machines, as its parts are written to a disk.

``boot.img`` is the boot code of sector 0. It loads the first sector of ``core.img``, which is in
the BIOS boot partition and loads the rest of itself. Both contain the numbers of the sectors to
load. This module writes them, as ``grub-bios-setup`` does without Reed-Solomon codes.

Source: ``include/grub/i386/pc/boot.h`` and ``util/setup.c`` of GRUB 2.12.
"""

from __future__ import annotations

import struct

from bootc.errors import Error

SECTOR_BYTES = 512

#: What sector 0 keeps: the parameters of a file system, and the disk's signature with the
#: partition table.
_KEPT = (slice(0x003, 0x05A), slice(0x1B8, 0x1FE))
#: Where ``boot.img`` has the sector of ``core.img``, the drive, and a jump that old firmware needs
#: where it passes no drive. A hard disk needs no check of the drive.
_KERNEL_SECTOR = 0x05C
_BOOT_DRIVE = 0x064
_DRIVE_CHECK = 0x066
_DRIVE_OF_FIRMWARE = b"\xff"
_NO_CHECK = b"\x90\x90"
#: Where the first sector of ``core.img`` has the place of the second; its number and the segment
#: of memory follow.
_BLOCK_LIST = 0x1F4
_SIGNATURE = b"\x55\xaa"
_SECTOR = struct.Struct("<Q")


class GrubImageError(Error):
    """A part of GRUB is not what its name says, or does not fit."""


def patch_core(core: bytes, first_sector: int, sectors: int) -> bytes:
    """Return ``core.img`` for its place on a disk, in whole sectors.

    Args:
        core: The output of ``grub-mkimage``.
        first_sector: The first sector of the partition.
        sectors: The size of the partition in sectors.

    Raises:
        GrubImageError: it does not fit, or is too short.
    """
    if len(core) <= SECTOR_BYTES:
        raise GrubImageError(f"GRUB's core image is too short: {len(core)} bytes")
    padded = core + bytes(-len(core) % SECTOR_BYTES)
    if len(padded) > sectors * SECTOR_BYTES:
        raise GrubImageError(
            f"GRUB's core image has {len(core)} bytes, and the BIOS boot partition has "
            f"{sectors * SECTOR_BYTES}"
        )
    image = bytearray(padded)
    _SECTOR.pack_into(image, _BLOCK_LIST, first_sector + 1)
    return bytes(image)


def patch_boot(boot: bytes, present: bytes, core_sector: int) -> bytes:
    """Return sector 0 with GRUB's boot code.

    Args:
        boot: The content of ``boot.img``.
        present: The present sector 0, with the partition table.
        core_sector: The first sector of ``core.img``.

    Raises:
        GrubImageError: ``boot`` is not a boot sector.
    """
    if len(boot) != SECTOR_BYTES or not boot.endswith(_SIGNATURE):
        raise GrubImageError("GRUB's boot.img is not a boot sector")
    assert len(present) == SECTOR_BYTES, "a whole sector"
    image = bytearray(boot)
    for kept in _KEPT:
        image[kept] = present[kept]
    _SECTOR.pack_into(image, _KERNEL_SECTOR, core_sector)
    image[_BOOT_DRIVE : _BOOT_DRIVE + 1] = _DRIVE_OF_FIRMWARE
    image[_DRIVE_CHECK : _DRIVE_CHECK + 2] = _NO_CHECK
    return bytes(image)
