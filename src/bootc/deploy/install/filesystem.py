"""The file systems of a new installation, and the commands that create them."""

from __future__ import annotations

import enum
import struct
import uuid

from bootc.errors import Error, doing
from bootc.fs import process

#: Makes the file system of an ESP.
ESP_TOOL = "mkfs.fat"


_EXT4_SUPERBLOCK = 1024
_EXT4_BYTES = 128
#: Fields of the superblock: the logarithm of the size of a block less 10, and the features that
#: only writers must know.
_EXT4_BLOCK_SIZE = 24
_EXT4_RO_COMPAT = 100
_EXT4_BLOCKS_OF_4K = 2
_EXT4_VERITY = 0x8000
#: A FAT32 has at least 65525 clusters, and each has at least a sector. The rest is for its tables.
_FAT32_SECTORS = 70_000


class UnknownFilesystem(Error):
    """A root file system type this program cannot make."""


class Filesystem(enum.StrEnum):
    """A type of root file system."""

    XFS = "xfs"
    EXT4 = "ext4"
    BTRFS = "btrfs"

    @classmethod
    def named(cls, name: str) -> Filesystem:
        """Return the member of that name.

        Raises:
            UnknownFilesystem: there is no such member.
        """
        try:
            return cls(name)
        except ValueError:
            raise UnknownFilesystem(
                f"Unknown filesystem: {name}", hint=f"one of {', '.join(cls)}"
            ) from None

    @property
    def supports_verity(self) -> bool:
        """Whether its files can have fs-verity."""
        return self is not Filesystem.XFS

    @property
    def tool(self) -> str:
        """The program that makes one."""
        return f"mkfs.{self.value}"


def lacks_verity(filesystem: Filesystem, device: str) -> str | None:
    """Return why files of an existing file system cannot have fs-verity, or None if they can.

    Format: the superblock of ext4 (kernel documentation, filesystems/ext4).

    Args:
        filesystem: Its type.
        device: Its block device.

    Raises:
        OSError: the device cannot be read.
    """
    if not filesystem.supports_verity:
        return f"{filesystem} has no fs-verity"
    if filesystem is not Filesystem.EXT4:
        return None
    with open(device, "rb") as file:
        file.seek(_EXT4_SUPERBLOCK)
        data = file.read(_EXT4_BYTES)
    (block_size,) = struct.unpack_from("<I", data, _EXT4_BLOCK_SIZE)
    (features,) = struct.unpack_from("<I", data, _EXT4_RO_COMPAT)
    if not features & _EXT4_VERITY:
        return f"the ext4 on {device} lacks the feature verity (tune2fs -O verity {device})"
    if block_size != _EXT4_BLOCKS_OF_4K:
        return (
            f"the ext4 on {device} has blocks of {1024 << block_size % 32} bytes, and not of 4096"
        )
    return None


def mkfs_argv(filesystem: Filesystem, device: str, fs_uuid: uuid.UUID) -> list[str]:
    """Return the command that makes a root file system.

    The partition is new and ours, even if its blocks still hold an old signature. Tools that
    would refuse because of a signature get the option to continue.
    """
    match filesystem:
        case Filesystem.EXT4:
            # mkfs.ext4 would give a small disk blocks of 1 KiB; fs-verity here needs 4 KiB.
            # 5 % of a large disk would be reserved for root, who writes most of this one anyway.
            options = ["-q", "-b", "4096", "-m", "1", "-U", str(fs_uuid), "-O", "verity"]
        case Filesystem.BTRFS:
            options = ["-q", "-f", "-U", str(fs_uuid)]
        case Filesystem.XFS:
            options = ["-q", "-f", "-m", f"uuid={fs_uuid}"]
    return [filesystem.tool, *options, "-L", "root", device]


def make_root(filesystem: Filesystem, device: str) -> uuid.UUID:
    """Make a root file system on ``device`` and return its UUID.

    Raises:
        ToolMissing: there is no program to make one.
        CommandFailed: that program failed.
    """
    fs_uuid = uuid.uuid4()
    with doing(f"Creating root filesystem ({filesystem}) on {device}"):
        process.run(mkfs_argv(filesystem, device, fs_uuid))
    return fs_uuid


def make_esp(device: str, sectors: int) -> None:
    """Make the FAT of an EFI system partition on ``device``.

    Args:
        device: The partition.
        sectors: How many sectors of its disk it has.

    Raises:
        ToolMissing: there is no mkfs.fat.
        CommandFailed: it failed.
    """
    # mkfs.fat takes FAT16 for small ones, but UEFI promises FAT32 for disks that stay.
    options = ["-F", "32"] if sectors >= _FAT32_SECTORS else []
    with doing(f"Creating the EFI system partition on {device}"):
        process.run([ESP_TOOL, *options, "-n", "EFI-SYSTEM", device])
