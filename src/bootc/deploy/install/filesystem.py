"""The file systems of a new installation, and the commands that create them."""

from __future__ import annotations

import enum
import uuid

from bootc.errors import Error, doing
from bootc.fs import process

#: Makes the file system of an ESP.
ESP_TOOL = "mkfs.fat"


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


def mkfs_argv(filesystem: Filesystem, device: str, fs_uuid: uuid.UUID) -> list[str]:
    """Return the command that makes a root file system.

    The partition is new and ours, even if its blocks still hold an old signature. Tools that
    would refuse because of a signature get the option to continue.
    """
    match filesystem:
        case Filesystem.EXT4:
            # mkfs.ext4 would give a small disk blocks of 1 KiB; fs-verity here needs 4 KiB.
            options = ["-q", "-b", "4096", "-U", str(fs_uuid), "-O", "verity"]
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


def make_esp(device: str) -> None:
    """Make the FAT of an EFI system partition on ``device``.

    Raises:
        ToolMissing: there is no mkfs.fat.
        CommandFailed: it failed.
    """
    with doing(f"Creating the EFI system partition on {device}"):
        process.run([ESP_TOOL, device, "-n", "EFI-SYSTEM"])
