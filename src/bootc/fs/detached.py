"""Mounts of a device at no place at all: seen by nobody else, gone with their descriptor."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from bootc.errors import doing
from bootc.fs import mounts
from bootc.fs.dir import Dir
from bootc.kernel import mount

_ATTRIBUTES = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC


@contextlib.contextmanager
def open_read_only(device: str, fstype: str, options: str = "") -> Iterator[Dir]:
    """Mount a device read-only at no place at all and yield its root directory.

    Neither the device nor the mounts it may have already are changed.

    Raises:
        OSError: it cannot be mounted.
    """
    with _open(device, fstype, lambda: _detached_mount(device, fstype, options)) as directory:
        yield directory


@contextlib.contextmanager
def open_writable(device: str, fstype: str, options: str = "") -> Iterator[Dir]:
    """Mount a device at no place at all and yield its root directory, for writing.

    What the system has mounted where does not matter: an automount that is asleep, a mount that
    is read-only. The file system itself is made writable if it was not, as
    :func:`bootc.fs.mounts.writable_filesystem` does; mounts that are read-only as mounts stay
    so. What was written is on the disk after ``Dir.sync``.

    Raises:
        OSError: it cannot be mounted for writing, with EROFS where the device refuses writes.
    """
    with _open(
        device, fstype, lambda: _writable_mount(device, fstype, options), writable=True
    ) as directory:
        yield directory


@contextlib.contextmanager
def _open(
    device: str, fstype: str, attach: Callable[[], int], *, writable: bool = False
) -> Iterator[Dir]:
    with contextlib.ExitStack() as stack:
        with doing(f"Mounting {device} ({fstype})"):
            mount_fd = attach()
            # The mount lives as long as this descriptor, which itself only names a place.
            stack.callback(os.close, mount_fd)
            if writable:
                stack.enter_context(mounts.writable_filesystem(mount_fd, device))
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount_fd)
        yield stack.enter_context(Dir(fd, path=device))


def _writable_mount(device: str, fstype: str, options: str) -> int:
    try:
        return _mount_instance(device, fstype, options.split(","), writable=True)
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
    # Mounted read-only somewhere: the kernel has one instance of it. Ours joins that one.
    return _mount_instance(device, fstype, ["ro", *options.split(",")], writable=True)


def _detached_mount(device: str, fstype: str, options: str) -> int:
    try:
        return _mount_instance(device, fstype, ["ro", *options.split(",")])
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
    # Mounted for writing somewhere: the kernel has one instance of it and does not make
    # it read-only for us. Ours joins that one and is read-only as a mount. (Asking for
    # this first would let FAT mark itself as in use, which is a write.)
    return _mount_instance(device, fstype, options.split(","))


def _mount_instance(device: str, fstype: str, options: list[str], *, writable: bool = False) -> int:
    fs_fd = mount.fsopen(fstype)
    try:
        mount.fsconfig_set_string(fs_fd, "source", device)
        for option in filter(None, options):
            key, equals, value = option.partition("=")
            if equals:
                mount.fsconfig_set_string(fs_fd, key, value)
            else:
                mount.fsconfig_set_flag(fs_fd, key)
        mount.fsconfig_create(fs_fd)
        attrs = _ATTRIBUTES if writable else _ATTRIBUTES | mount.MOUNT_ATTR_RDONLY
        return mount.fsmount(fs_fd, attrs=attrs)
    finally:
        os.close(fs_fd)
