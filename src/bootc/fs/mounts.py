"""Mounts that end with a block of code.

The mount points are temporary directories below ``/run/bootc/mounts``. Promises: the
file system is unmounted and its mount point removed however the block ends, and written
back before its device is released. A process that mounts file systems starts with
:func:`private_mount_namespace`: other processes do not see its mounts, and they end with
the process even if it is killed.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from bootc.errors import Error, doing, one_line
from bootc.fs.dir import Dir
from bootc.kernel import proc
from bootc.kernel.libc import AT_FDCWD
from bootc.kernel.mount import (
    CLONE_NEWNS,
    MNT_DETACH,
    MS_RDONLY,
    MS_REC,
    MS_SLAVE,
    UMOUNT_NOFOLLOW,
    fsconfig_reconfigure,
    fsconfig_set_flag,
    fspick,
    mount,
    move_mount,
    umount2,
    unshare,
)
from bootc.printable import printable

_log = logging.getLogger(__name__)

_MOUNT_POINTS = "/run/bootc/mounts"

#: mount id, parent, device, root, mount point, options, optional fields, -, type, source, options
#: of the file system
_MOUNT = re.compile(
    rb"(\d{1,10}) (\d{1,10}) (\d+:\d+) ([^ ]+) ([^ ]+) [^ ]+(?: [^ ]+)*? - ([^ ]+) ([^ ]*) ([^ ]*)"
)
#: The kernel's escapes of a blank, a tab, a newline, a backslash and (newer kernels) ``#``.
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


class MountTableError(Error):
    """The kernel's table of mounts has an unknown form."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of ``/proc/self/mountinfo`` (proc(5)), without fields that bootc does not use."""

    mount_id: int
    device: str  # major:minor
    path: str
    fstype: str
    source: str
    parent_id: int = 0
    root: str = "/"  # the directory of the file system that is mounted
    options: tuple[str, ...] = ()  # of the file system


def private_mount_namespace() -> None:
    """Leave the mount namespace of the host: other processes do not see new mounts of this one.

    This process sees new mounts of the host. Therefore automounts still work.
    """
    with doing("Making a private mount namespace"):
        unshare(CLONE_NEWNS)
        mount(None, "/", None, MS_REC | MS_SLAVE)


@contextlib.contextmanager
def mounted(
    device: str, fstype: str, *, options: str = "", read_only: bool = False
) -> Iterator[Dir]:
    """Mount a device at a new mount point and yield its root directory.

    Args:
        device: Path of a block device.
        fstype: The kernel's name of the file system.
        options: Options of the file system, separated by commas.
        read_only: Mount read-only.
    """
    with _mount_point() as path:
        with doing(f"Mounting {device} ({fstype})"):
            mount(device, path, fstype, MS_RDONLY if read_only else 0, options)
        try:
            with Dir.open(path) as directory:
                yield directory
                if not read_only:
                    # umount would not report errors of writing.
                    with doing(f"Syncing {device}"):
                        directory.sync()
        finally:
            _unmount(path)


@contextlib.contextmanager
def attach(mount_fd: int) -> Iterator[str]:
    """Give a detached mount a path for as long as the block runs. The descriptor stays open."""
    with _mount_point() as path:
        with doing(f"Attaching a mount at {path}"):
            move_mount(mount_fd, "", AT_FDCWD, path)
        try:
            yield path
        finally:
            umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW)


@contextlib.contextmanager
def writable_filesystem(mount_fd: int, path: str) -> Iterator[None]:
    """Make a file system writable for the block if it is not.

    If the file system itself is read-only, and not only the mount, it becomes writable for all
    processes: the kernel has one instance of it. At the end it is read-only again, unless another
    process writes to it at that time. A process that is killed leaves it writable.

    Args:
        mount_fd: Descriptor of the root directory of a mount of it, which is writable as a mount.
        path: How messages name it.

    Raises:
        OSError: it cannot be made writable.
    """
    if not os.statvfs(mount_fd).f_flag & os.ST_RDONLY:
        yield
        return
    _reconfigure(mount_fd, "rw")
    try:
        yield
    finally:
        try:
            _reconfigure(mount_fd, "ro")
        except OSError as exc:
            _log.warning("%s stays writable: %s", path, one_line(exc))


def _reconfigure(mount_fd: int, flag: str) -> None:
    # A remount would set all other flags of the file system, too.
    fs_fd = fspick(mount_fd)
    try:
        fsconfig_set_flag(fs_fd, flag)
        fsconfig_reconfigure(fs_fd)
    finally:
        os.close(fs_fd)


def is_mounted(device: str) -> bool:
    """Tell whether a block device is mounted anywhere in this mount namespace."""
    number = os.stat(device).st_rdev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    # Mounts of btrfs have an anonymous device number. Their source names the device.
    return any(
        entry.device == wanted or _is_device(entry.source, number) for entry in read_mounts()
    )


def mount_of(directory: Dir) -> Mount | None:
    """Return the mount of a directory, or None if this mount has no mount point."""
    number = proc.mount_id(directory.fileno())
    return next((entry for entry in read_mounts() if entry.mount_id == number), None)


def filesystem_of(directory: Dir) -> str:
    """Return the type of the file system that contains a directory, or ``unknown``."""
    entry = mount_of(directory)
    return "unknown" if entry is None else entry.fstype


def mount_points_below(directory: Dir, name: str) -> list[str]:
    """Return the mount points at an entry of a directory and below it.

    Mounts count whatever path leads to them. For example, a mount on ``/etc/x`` counts for the
    directory that is mounted at ``/etc``. Mounts of other mount namespaces do not count.
    """
    here = mount_of(directory)
    if here is None:
        return []
    table = {entry.mount_id: entry for entry in read_mounts()}
    inside = _within(here, os.readlink(f"/proc/self/fd/{directory.fileno()}"))
    wanted = os.path.join(inside, name)
    found = []
    for entry in table.values():
        under = table.get(entry.parent_id)
        if under is not None and under.device == here.device:
            place = _within(under, entry.path)
            if place == wanted or place.startswith(f"{wanted}/"):
                found.append(entry.path)
    return found


def _within(entry: Mount, path: str) -> str:
    """Return the path, within the file system mounted there, of a path of this process."""
    return os.path.normpath(os.path.join(entry.root, os.path.relpath(path, entry.path)))


def read_mounts() -> list[Mount]:
    """Return the mounts of this mount namespace, in the kernel's order.

    Raises:
        MountTableError: a line of the kernel's table has an unknown form.
    """
    return [parse_mount(line) for line in proc.read_table("/proc/self/mountinfo")]


def parse_mount(line: bytes) -> Mount:
    r"""Parse one line of ``mountinfo``, without its newline.

    >>> parse_mount(rb"36 35 98:0 /mnt1 /mnt\0402 rw master:1 - ext3 /dev/root rw")
    Mount(mount_id=36, device='98:0', path='/mnt 2', fstype='ext3', source='/dev/root', \
parent_id=35, root='/mnt1', options=('rw',))

    Raises:
        MountTableError: the line is malformed.
    """
    match = _MOUNT.match(line)
    if match is None:
        # Without this line a mounted disk would look unused.
        raise MountTableError(f"/proc/self/mountinfo has a line '{printable(line, 200)}'")
    device, root, path, fstype, source = map(_unescaped, match.group(3, 4, 5, 6, 7))
    options = tuple(_unescaped(option) for option in match[8].split(b",") if option)
    return Mount(int(match[1]), device, path, fstype, source, int(match[2]), root, options)


def _unescaped(field: bytes) -> str:
    raw = _OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)
    # In the form that os.stat() takes, also for bytes that are not UTF-8.
    return os.fsdecode(raw)


def _is_device(path: str, number: int) -> bool:
    try:
        info = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISBLK(info.st_mode) and info.st_rdev == number


@contextlib.contextmanager
def _mount_point() -> Iterator[str]:
    os.makedirs(_MOUNT_POINTS, mode=0o700, exist_ok=True)
    # Only root can make names there, and the random names differ.
    path = f"{_MOUNT_POINTS}/{os.urandom(8).hex()}"
    os.mkdir(path, mode=0o700)
    try:
        yield path
    finally:
        os.rmdir(path)


def _unmount(path: str) -> None:
    try:
        umount2(path, UMOUNT_NOFOLLOW)
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
        # A process still has a file open below. The mount ends when it closes the file.
        _log.warning("%s is still in use, unmounting it lazily", path)
        umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW)
