"""Finds the partitions that a machine boots from, and opens the ESP.

The main ESP of a system is the one that its boot loader was started from, or else the first on
the disks of its root file system. These disks may be below encryption, logical volumes or RAID, or
a btrfs may be on several of them. All further ESPs on these disks are mirrors of the main one.
:mod:`bootc.fs.detached` mounts the partitions.

GRUB's extended boot loader partition (XBOOTLDR) is the first on these disks. systemd-boot uses
the first on the disk of the ESP.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bootc.errors import Error, doing, one_line
from bootc.formats import dps
from bootc.fs import lsblk, mounts, process
from bootc.fs.detached import open_read_only, open_writable
from bootc.fs.dir import Dir
from bootc.fs.lsblk import Block
from bootc.kernel import proc

if TYPE_CHECKING:
    from bootc.boot.firmware_entries import PartitionPlace

#: Partition types by the kind of partition table.
_Types = Mapping[str, Collection[str]]

_log = logging.getLogger(__name__)

#: The types of an ESP in each kind of partition table. Old tables may have FAT-16 instead.
_ESP_TYPES: _Types = {"gpt": {dps.ESP}, "dos": {"0xef", "0x6"}}
_XBOOTLDR_TYPES: _Types = {"gpt": {dps.XBOOTLDR}, "dos": {"0xea"}}
#: The file system that firmware reads.
ESP_FILESYSTEM = "vfat"
#: The unit in which ``/sys`` gives the start and the size of partitions.
_KERNEL_SECTOR_BYTES = 512
#: The directory in which the kernel lists the devices of each mounted btrfs.
_BTRFS = "/sys/fs/btrfs"
#: FAT has no modes of its own. Only root may read the ESP, and no file on it is executable.
ESP_OPTIONS = "fmask=0177,dmask=0077"


class NotOnGpt(Error):
    """The boot entries of the firmware cannot name this partition."""


class NoBackingDevice(Error):
    """The file system of a directory is not on a block device."""


def backing_device(directory: Dir) -> str:
    """Return the path of the block device with the file system of ``directory``.

    Raises:
        NoBackingDevice: the file system is, for example, in memory or on a network.
    """
    with doing(f"Looking for the device of {directory.path}"):
        number = os.fstat(directory.fileno()).st_dev
        if os.major(number) == 0:
            # btrfs has device numbers of its own. The table of mounts names the device.
            entry = mounts.mount_of(directory)
            source = "unknown" if entry is None else entry.source
            if not source.startswith("/dev/"):
                raise NoBackingDevice(f"{directory.path} is not on a block device ({source})")
            return source
        name = proc.read_fields(f"{_sysfs(number)}/uevent", b"=").get(b"DEVNAME")
        if not name:
            raise NoBackingDevice(f"the block device of {directory.path} has no name in /dev")
        return f"/dev/{os.fsdecode(name)}"


def is_read_only(device: str) -> bool:
    """Tell whether a block device itself refuses writes, regardless of its mounts."""
    return proc.read_table(f"{_sysfs(os.stat(device).st_rdev)}/ro") == [b"1"]


@dataclass(frozen=True, slots=True)
class Esps:
    """The ESPs of a system, as paths of partitions.

    Attributes:
        main: The ESP that the system boots from.
        mirrors: The further ESPs on the disks of the root file system. The devices that a RAID or
            another device uses are left out.
        ids: The PARTUUIDs of all of them in lower case; None if udev does not know one.
    """

    main: str
    mirrors: tuple[str, ...] = ()
    ids: frozenset[str] | None = None

    def missing(self, recorded: Iterable[str]) -> list[str]:
        """Return those of recorded PARTUUIDs that are not there any more.

        A replaced disk has another PARTUUID. Therefore nothing is missing if there are as many
        ESPs as there were.
        """
        expected = {partition_id.lower() for partition_id in recorded}
        if self.ids is None or len(self.ids) >= len(expected):
            return []
        return sorted(expected - self.ids)


def find_esp(device: str, preferred: Sequence[str] = ()) -> str | None:
    """Return the path of the main ESP of the file system on ``device``, or None.

    The arguments and errors are those of :func:`find_esps`.
    """
    with doing(f"Looking for the EFI system partition of {device}"):
        found = _find_esp(_on_disks_of(device), preferred)
        return None if found is None else found.path


def find_esps(device: str, preferred: Sequence[str] = ()) -> Esps | None:
    """Return the ESPs that belong to the file system on ``device``, or None if there is no ESP.

    Args:
        device: A block device of the root file system.
        preferred: PARTUUIDs in lower case. The first that is an ESP is the main one, on whichever
            disk it is, and one on the disks of ``device`` before a copy on another disk.

    Raises:
        ToolMissing: lsblk is not installed.
        CommandFailed: lsblk cannot read the device.
    """
    with doing(f"Looking for the EFI system partitions of {device}"):
        beside = list(_on_disks_of(device))
        main = _find_esp(beside, preferred)
        if main is None:
            return None
        mirrors = _mirrors(beside, main.path)
        known = {block.path: block.partition_id for block in (*beside, main)}
        ids = {known[path] for path in (main.path, *mirrors)}
        all_known = frozenset(partition_id for partition_id in ids if partition_id is not None)
        return Esps(main.path, mirrors, all_known if None not in ids else None)


def find_mirrors(device: str, main: str) -> tuple[str, ...]:
    """Return the paths of the ESPs on the disks of the file system on ``device``, without one.

    Args:
        device: A block device of the root file system.
        main: The path of the main ESP, which may be on another disk.

    Raises:
        ToolMissing, CommandFailed: as :func:`find_esps`.
    """
    with doing(f"Looking for the EFI system partitions of {device}"):
        return _mirrors(_on_disks_of(device), main)


def _find_esp(beside: Iterable[Block], preferred: Sequence[str]) -> Block | None:
    beside = tuple(beside) if preferred else beside
    # The loader can be on another disk than the root.
    for partition_id in preferred:
        for block in _of_type((*beside, *lsblk.all_devices()), _ESP_TYPES):
            if block.partition_id == partition_id:
                return block
    return next(_of_type(beside, _ESP_TYPES), None)


def _mirrors(beside: Iterable[Block], main: str) -> tuple[str, ...]:
    # The members of an array are written through the array.
    esps = (block.path for block in _of_type(beside, _ESP_TYPES) if block.is_last)
    return tuple(path for path in dict.fromkeys(esps) if not _is_same(path, main))


def _is_same(path: str, other: str) -> bool:
    """Tell whether two paths name the same device."""
    try:
        return path == other or os.stat(path).st_rdev == os.stat(other).st_rdev
    except FileNotFoundError:
        return False


def find_xbootldr_beside(esp: str) -> str | None:
    """Return the path of the XBOOTLDR partition that systemd-boot on an ESP uses, or None.

    It is the first on the disk of the ESP. systemd-boot reads only FAT.

    Raises:
        ToolMissing, CommandFailed: as :func:`find_esp`.
    """
    with doing(f"Looking for the boot partition beside {esp}"):
        found = next(_of_type(_on_disks_of(esp), _XBOOTLDR_TYPES), None)
        if found is None or _filesystem(found.path, ok=(0, 2)) != ESP_FILESYSTEM:
            return None
        return found.path


def find_xbootldr(device: str) -> str | None:
    """Return the path of the XBOOTLDR partition beside the file system on ``device``, or None.

    Raises:
        ToolMissing, CommandFailed: as :func:`find_esp`.
    """
    with doing(f"Looking for the boot partition of {device}"):
        found = next(_of_type(_on_disks_of(device), _XBOOTLDR_TYPES), None)
        return None if found is None else found.path


def find_named(device: str, wanted: Mapping[str, str]) -> dict[str, str]:
    """Return the paths of partitions on the disks of ``device`` by their names in the table.

    Args:
        device: The block device of the root file system.
        wanted: The types of the partitions in a GPT, by name. Type and name must both match, and
            of several partitions the first counts.

    Raises:
        ToolMissing, CommandFailed: as :func:`find_esp`.
    """
    with doing(f"Looking for {', '.join(wanted)} beside {device}"):
        found: dict[str, str] = {}
        for kind in dict.fromkeys(wanted.values()):
            for block in _of_type(_on_disks_of(device), {"gpt": {kind}}):
                name = block.partition_name or _probed(block.path, "PART_ENTRY_NAME")
                if name is not None and wanted.get(name) == kind:
                    found.setdefault(name, block.path)
        return found


def filesystem_on(device: str) -> str:
    """Return the type of the file system on a device, from the content of the device.

    Raises:
        ToolMissing: blkid is not installed.
        CommandFailed: there is no file system, or the device cannot be read.
    """
    with doing(f"Looking for the file system on {device}"):
        return _filesystem(device)


def place_of(device: str) -> PartitionPlace:
    """Return the place of a partition on its disk, as the firmware names it.

    Raises:
        NotOnGpt: it is not a partition of a GPT disk.
        ToolMissing, CommandFailed: as :func:`find_esp`.
        OSError: the kernel does not tell where the partition is.
    """
    # Imported here: only machines without a boot loader need it.
    from uuid import UUID

    from bootc.boot.firmware_entries import PartitionPlace

    with doing(f"Looking for the place of {device} on its disk"):
        block = next(iter(lsblk.above(device)))
        partuuid = block.partition_id or _probed_id(device)
        if (block.partition_table or "gpt") != "gpt" or partuuid is None:
            raise NotOnGpt(f"{device} is not a partition of a GPT disk")
        directory = _sysfs(os.stat(device).st_rdev)
        number, start, size = (
            _number(f"{directory}/{name}") for name in ("partition", "start", "size")
        )
        # The kernel counts in units of 512 bytes, the table of partitions in sectors.
        sector = _number(f"{directory}/../queue/logical_block_size") // _KERNEL_SECTOR_BYTES
        return PartitionPlace(number, start // sector, size // sector, UUID(partuuid))


def filesystem_uuid(device: str) -> str:
    """Return the UUID of the file system on a device as ``blkid`` prints it, or an empty string.

    Raises:
        ToolMissing: blkid is not installed.
        CommandFailed: the device cannot be read.
    """
    with doing(f"Looking for the UUID of the file system on {device}"):
        # Exit status 2: blkid found nothing.
        return _tag(device, "UUID", (0, 2))


@contextlib.contextmanager
def open_esp(device: str) -> Iterator[Dir]:
    """Yield the root directory of the ESP for reading, through a mount that only we see.

    Raises:
        OSError: mounting failed.
    """
    with open_read_only(device, ESP_FILESYSTEM, ESP_OPTIONS) as directory:
        yield directory


@contextlib.contextmanager
def open_esp_writable(device: str) -> Iterator[Dir]:
    """Yield the root directory of the ESP for writing, through a mount of our own.

    Raises:
        OSError: mounting failed.
    """
    if not mounts.is_mounted(device):
        # Repair the traces of a power cut before we write. systemd checks the ESP when it mounts
        # /boot or /efi the next time, and a repair then could damage what we wrote.
        _mend(device)
    with open_writable(device, ESP_FILESYSTEM, ESP_OPTIONS) as directory:
        yield directory


def _mend(device: str) -> None:
    with doing(f"Checking {device}"):
        try:
            # Exit status 1: fsck repaired something.
            process.run([f"fsck.{ESP_FILESYSTEM}", "-a", device], ok=(0, 1))
        except Error as exc:
            # Without the tool nobody else checks the ESP either.
            _log.warning("the EFI system partition was not checked: %s", one_line(exc))


def _number(path: str) -> int:
    with open(path, encoding="ascii") as file:
        return int(file.read())


def _probed_id(device: str) -> str | None:
    """Return the PARTUUID of a partition that udev has not looked at yet."""
    return _probed(device, "PART_ENTRY_UUID")


def _probed(device: str, tag: str) -> str | None:
    """Return one value of a partition's row in the table."""
    argv = ["blkid", "--probe", "--match-tag", tag, "--output", "value", device]
    return process.run(argv, ok=(0, 2)).stdout.decode("ascii", "replace").strip() or None


def _sysfs(number: int) -> str:
    return f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"


def _on_disks_of(device: str) -> Iterator[Block]:
    parts = _devices_of_btrfs(device) or [device]
    disks = [block for part in parts for block in lsblk.below(part) if block.is_last]
    # Several parts of an array may be on one disk.
    for path in dict.fromkeys(disk.path for disk in disks):
        yield from lsblk.above(path)


def _devices_of_btrfs(device: str) -> list[str]:
    """Return all devices of the btrfs on a device, this one first; nothing if it has no btrfs."""
    try:
        own = _name_in_kernel(device)
    except FileNotFoundError:
        return []
    for directory in sorted(glob.glob(f"{_BTRFS}/*/devices")):
        names = sorted(os.listdir(directory), key=lambda name: (name != own, name))
        if own in names:
            fields = (proc.read_fields(f"{directory}/{name}/uevent", b"=") for name in names)
            return [f"/dev/{os.fsdecode(field[b'DEVNAME'])}" for field in fields]
    return []


def _name_in_kernel(device: str) -> str:
    """Return the name that the kernel has for a device, which may have several nodes."""
    return os.path.basename(os.path.realpath(_sysfs(os.stat(device).st_rdev)))


def _of_type(blocks: Iterable[Block], types: _Types) -> Iterator[Block]:
    for block in blocks:
        if block.kind not in ("disk", "loop") and _is_of(block, types):
            yield block


def _is_of(block: Block, types: _Types) -> bool:
    table, kind = block.partition_table, block.partition_type
    if kind is None:
        # udev has not looked at this partition yet.
        table, kind = _probe(block.path)
    return kind is not None and kind.lower() in types.get(table or "gpt", ())


def _filesystem(device: str, ok: Sequence[int] = (0,)) -> str:
    return _tag(device, "TYPE", ok)


def _tag(device: str, tag: str, ok: Sequence[int]) -> str:
    argv = ["blkid", "--probe", "--match-tag", tag, "--output", "value", device]
    done = process.run(argv, ok=ok)
    return done.stdout.decode("utf-8", "backslashreplace").strip()


def _probe(path: str) -> tuple[str | None, str | None]:
    scheme, kind = "PART_ENTRY_SCHEME", "PART_ENTRY_TYPE"
    # Only these tags: others, such as the name of a partition, may contain anything.
    tags = ("--match-tag", scheme, "--match-tag", kind)
    # Exit status 2: blkid found nothing.
    done = process.run(["blkid", "--probe", *tags, "--output", "export", path], ok=(0, 2))
    lines = done.stdout.decode("utf-8", "backslashreplace").split("\n")
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get(scheme), fields.get(kind)
