"""From a directory to its disk, and from there to the partitions that are booted from.

Owns the search for the ESP, and for a boot partition beside it, and reading them
without leaving a trace. Those of a system are the first on the disks which hold its
root file system; the disks lie below any stack of encryption, volumes or RAID.
Partition types come from ``lsblk``, and from ``blkid`` on a machine whose udev has
not looked at them yet.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection, Iterator, Mapping

from bootc.errors import Error, doing, one_line
from bootc.formats import dps
from bootc.fs import lsblk, mounts, process
from bootc.fs.detached import open_read_only, open_writable
from bootc.fs.dir import Dir
from bootc.fs.lsblk import Block
from bootc.kernel import proc

#: Partition types by the kind of partition table.
_Types = Mapping[str, Collection[str]]

_log = logging.getLogger(__name__)

#: What an ESP is called in each kind of partition table; old tables know FAT-16 as well.
_ESP_TYPES: _Types = {"gpt": {dps.ESP}, "dos": {"0xef", "0x6"}}
_XBOOTLDR_TYPES: _Types = {"gpt": {dps.XBOOTLDR}, "dos": {"0xea"}}
#: The file system that firmware reads.
ESP_FILESYSTEM = "vfat"
#: FAT has no modes of its own. Only root may read the ESP, and no file on it is executable.
ESP_OPTIONS = "fmask=0177,dmask=0077"


class NoBackingDevice(Error):
    """A directory does not lie on a block device."""


def backing_device(directory: Dir) -> str:
    """Return the path of the block device whose file system holds ``directory``.

    Raises:
        NoBackingDevice: it is of another kind, in memory or on a network for example.
    """
    with doing(f"Looking for the device of {directory.path}"):
        number = os.fstat(directory.fileno()).st_dev
        if os.major(number) == 0:
            # btrfs invents numbers; its mount names the device.
            entry = mounts.mount_of(directory)
            source = "unknown" if entry is None else entry.source
            if not source.startswith("/dev/"):
                raise NoBackingDevice(f"{directory.path} lies on no block device ({source})")
            return source
        name = proc.read_fields(f"{_sysfs(number)}/uevent", b"=").get(b"DEVNAME")
        if not name:
            raise NoBackingDevice(f"the block device of {directory.path} has no name in /dev")
        return f"/dev/{os.fsdecode(name)}"


def is_read_only(device: str) -> bool:
    """Tell whether a block device itself refuses writes, whatever is mounted how."""
    return proc.read_table(f"{_sysfs(os.stat(device).st_rdev)}/ro") == [b"1"]


def find_esp(device: str) -> str | None:
    """Return the path of the ESP that belongs to the file system on ``device``.

    Raises:
        ToolMissing: there is no lsblk.
        CommandFailed: lsblk cannot read the device.
    """
    with doing(f"Looking for the EFI system partition of {device}"):
        return _find(device, _ESP_TYPES)


def find_xbootldr(device: str) -> str | None:
    """Return the path of the extended boot loader partition beside the file system on ``device``.

    Raises:
        ToolMissing, CommandFailed: as :func:`find_esp`.
    """
    with doing(f"Looking for the boot partition of {device}"):
        return _find(device, _XBOOTLDR_TYPES)


def filesystem_on(device: str) -> str:
    """Return the type of the file system on a device, by its own bytes.

    Raises:
        ToolMissing: there is no blkid.
        CommandFailed: there is none, or the device cannot be read.
    """
    with doing(f"Looking for the file system on {device}"):
        argv = ["blkid", "--probe", "--match-tag", "TYPE", "--output", "value", device]
        return process.run(argv).stdout.decode("utf-8", "backslashreplace").strip()


@contextlib.contextmanager
def open_esp(device: str) -> Iterator[Dir]:
    """Yield the root directory of the ESP, for reading only and seen by nobody else.

    Raises:
        OSError: it cannot be mounted.
    """
    with open_read_only(device, ESP_FILESYSTEM, ESP_OPTIONS) as directory:
        yield directory


@contextlib.contextmanager
def open_esp_writable(device: str) -> Iterator[Dir]:
    """Yield the root directory of the ESP, for writing and through a mount of our own.

    What a power cut left of it is mended first. Whoever mounts it next by ``/boot`` or
    ``/efi`` has it checked, and a check that comes after our writing may mend that away.

    Raises:
        OSError: it cannot be mounted.
    """
    if not mounts.is_mounted(device):
        _mend(device)
    with open_writable(device, ESP_FILESYSTEM, ESP_OPTIONS) as directory:
        yield directory


def _mend(device: str) -> None:
    with doing(f"Checking {device}"):
        try:
            # 1 says that something was mended.
            process.run([f"fsck.{ESP_FILESYSTEM}", "-a", device], ok=(0, 1))
        except Error as exc:
            # Without the tool nobody else has it checked either.
            _log.warning("the EFI system partition was not checked: %s", one_line(exc))


def _sysfs(number: int) -> str:
    return f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"


def _find(device: str, types: _Types) -> str | None:
    disks = [block for block in lsblk.below(device) if block.is_last]
    # One disk may be reached through several parts of an array.
    for path in dict.fromkeys(disk.path for disk in disks):
        for block in lsblk.above(path):
            if block.kind not in ("disk", "loop") and _is_of(block, types):
                return block.path
    return None


def _is_of(block: Block, types: _Types) -> bool:
    table, kind = block.partition_table, block.partition_type
    if kind is None:
        table, kind = _probe(block.path)
    return kind is not None and kind.lower() in types.get(table or "gpt", ())


def _probe(path: str) -> tuple[str | None, str | None]:
    scheme, kind = "PART_ENTRY_SCHEME", "PART_ENTRY_TYPE"
    # Only these, since others say what a partition is called, which may be anything.
    tags = ("--match-tag", scheme, "--match-tag", kind)
    # blkid says 2 when it knows nothing.
    done = process.run(["blkid", "--probe", *tags, "--output", "export", path], ok=(0, 2))
    lines = done.stdout.decode("utf-8", "backslashreplace").split("\n")
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get(scheme), fields.get(kind)
