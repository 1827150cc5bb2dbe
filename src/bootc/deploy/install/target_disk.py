"""The disk to install to: inspecting it, checking that it may be overwritten, wiping it.

The disk may also be a file, the image of a disk for another machine.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import time
from dataclasses import dataclass
from typing import Self

from bootc.deploy.install import interrupted, partition
from bootc.deploy.install.request import InstallRefused
from bootc.errors import Error, doing, one_line
from bootc.events import Message, Sink
from bootc.fs import lsblk, mounts, process
from bootc.fs.interruption import undisturbed

_log = logging.getLogger(__name__)

_FILE = "file"
_LOOP_DEVICES = "/sys/block"
_TABLES = ("gpt", "PMBR", "dos")


_FORGET_TIMEOUT_S = 20.0
_FORGET_POLL_S = 0.2


class StillInUse(Error):
    """A process holds a partition of the old table."""


@dataclass(frozen=True, slots=True)
class Device:
    """A whole disk. ``partitions`` are the ones that the kernel knows."""

    path: str
    kind: str
    size_bytes: int
    read_only: bool
    model: str | None
    serial: str | None
    partitions: tuple[str, ...]

    @property
    def is_file(self) -> bool:
        """Whether it is the image of a disk, and no device."""
        return self.kind == _FILE


def inspect(path: str) -> Device:
    """Inspect a disk. Symlinks such as those in ``/dev/disk`` are followed.

    Raises:
        InstallRefused: the path is no block device, or is a partition.
        OSError: the path does not exist.
    """
    if not stat.S_ISBLK(os.stat(path).st_mode):
        raise InstallRefused(f"Not a block device: {path}")
    with doing(f"Inspecting {path}"):
        disk, *others = lsblk.above(path)
    if disk.kind == "part":
        raise InstallRefused(f"Not a whole disk: {path} is a partition")
    # A volume on several partitions is listed several times.
    partitions = dict.fromkeys(block.path for block in others if block.kind == "part")
    return Device(
        path=disk.path,
        kind=disk.kind,
        size_bytes=disk.size_bytes,
        read_only=disk.read_only,
        model=disk.model,
        serial=disk.serial,
        partitions=tuple(partitions),
    )


def inspect_file(path: str) -> Device:
    """Inspect the file that becomes the image of a disk. Symlinks are followed.

    Raises:
        InstallRefused: the path is no regular file.
        OSError: the path does not exist.
    """
    info = os.stat(path)
    if not stat.S_ISREG(info.st_mode):
        raise InstallRefused(f"Not a regular file (to be used via loopback): {path}")
    real = os.path.realpath(path)
    read_only = not os.access(real, os.W_OK)
    return Device(real, _FILE, info.st_size, read_only, None, None, ())


def check_may_be_written(device: Device, *, wipe: bool, machine: str) -> bool:
    """Refuse a disk that is in use, and without ``wipe`` a disk that is not blank.

    Args:
        device: The disk.
        wipe: The user allows to overwrite data.
        machine: The architecture of this machine, as ``uname -m`` prints it.

    Returns:
        Whether the disk has an installation that was killed before its commit point. It counts as
        blank, but has to be wiped.

    Raises:
        InstallRefused: the disk is read-only, in use, or not blank.
        Error, OSError: the disk cannot be read.
    """
    if device.read_only:
        raise InstallRefused(f"Device {device.path} is read-only")
    if device.is_file:
        _check_not_attached(device.path)
    else:
        _check_not_mounted(device)
        _check_not_claimed(device.path)
    if wipe:
        return False
    with doing(f"Looking for data on {device.path}"):
        kinds = _signatures(device.path)
        table, damage = _look_at_table(device.path) if kinds & set(_TABLES) else ((), None)
    if partition.is_unfinished(table):
        if not interrupted.disk_boots(device.path, table, machine):
            return True
        damage = "it has an installation that was killed after it was complete, and boots"
    if device.partitions or table or damage:
        raise InstallRefused(
            f"Detected existing partitions on {device.path}; "
            "use e.g. `wipefs` or --wipe if you intend to overwrite",
            hint=damage,
        )
    if data := sorted(kinds - set(_TABLES)):
        raise InstallRefused(
            f"Detected existing data ({', '.join(data)}) on {device.path}; "
            "use e.g. `wipefs` or --wipe if you intend to overwrite"
        )
    return False


def _check_not_mounted(device: Device) -> None:
    for path in (device.path, *device.partitions):
        if mounts.is_mounted(path):
            hint = None if path == device.path else f"its partition {path} is"
            raise InstallRefused(f"Device {device.path} is mounted", hint=hint)


def wipe(device: Device) -> None:
    """Remove every signature from the disk and from the partitions it has now.

    ``wipefs`` knows the places of each format, including copies at the end of the disk. The
    data remains, but no program finds it. This can be repeated in any state of the disk.

    Raises:
        CommandFailed: the disk could not be written.
        StillInUse: the disk is blank, but a process still holds one of its partitions.
    """
    with doing(f"Wiping {device.path}"):
        partitions = () if device.is_file else inspect(device.path).partitions
        for path in (*partitions, device.path):
            # --force: a lazily unmounted file system may still hold it for a moment.
            process.run(["wipefs", "--all", "--force", path])
        if not device.is_file:
            _forget_partitions(device.path)


def _forget_partitions(path: str) -> None:
    """Make the kernel forget the partitions of the disk, as the next installation expects.

    This fails while a partition is held: by a file system that is being unmounted, or by udev,
    which probes each device that was written to. Both release it soon.
    """
    deadline_s = time.monotonic() + _FORGET_TIMEOUT_S
    partition.settle()
    while left := inspect(path).partitions:
        if time.monotonic() > deadline_s:
            raise StillInUse(f"the partition {left[0]} is still in use", hint="see lsblk")
        process.run(["partx", "--delete", path], ok=(0, 1))
        partition.settle()
        time.sleep(_FORGET_POLL_S)


class BlankUnlessKept:
    """Wipes a disk if the block fails before it called :meth:`keep`."""

    __slots__ = ("_disk", "_kept", "_sink")

    def __init__(self, disk: Device, sink: Sink) -> None:
        self._disk = disk
        self._sink = sink
        self._kept = False

    def keep(self) -> None:
        """Keep the data on the disk from now on, also after a failure."""
        self._kept = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if exc is None or self._kept:
            return
        with undisturbed():
            try:
                wipe(self._disk)
            except (Error, OSError) as failure:
                # The first failure is the one to report.
                _log.warning("%s is not blank: %s", self._disk.path, one_line(failure))
            else:
                self._sink(Message(f"Wiped device {self._disk.path} after the failure"))


def _check_not_claimed(path: str) -> None:
    """Open the disk exclusively, which fails while anything uses it."""
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
        raise InstallRefused(
            f"Device {path} is in use",
            hint="see lsblk: a volume, a swap area or another mount namespace holds it",
        ) from None


def _check_not_attached(path: str) -> None:
    """Refuse a file that is the content of a loop device."""
    for name in os.listdir(_LOOP_DEVICES):
        attribute = f"{_LOOP_DEVICES}/{name}/loop/backing_file"
        with contextlib.suppress(OSError), open(attribute, encoding="utf-8") as file:
            if os.path.samefile(file.read().rstrip("\n"), path):
                raise InstallRefused(
                    f"{path} is in use by /dev/{name}", hint=f"detach it: losetup -d /dev/{name}"
                )


def _look_at_table(path: str) -> tuple[tuple[partition.Partition, ...], str | None]:
    """Return the rows of a partition table, and if it is damaged, how."""
    try:
        return partition.read_table(path), None
    except process.CommandFailed as exc:
        # The backup table at the end of the disk survives if the start was overwritten.
        _log.debug("the table cannot be read: %s", one_line(exc))
        return (), "only a part of the partition table is left, and it cannot be read"


def _signatures(path: str) -> set[str]:
    done = process.run(["wipefs", "--noheadings", "--output", "TYPE", path])
    lines = done.stdout.decode("utf-8", "backslashreplace").split("\n")
    return {line.strip() for line in lines if line.strip()}
