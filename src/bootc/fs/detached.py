"""Mounts a device without a mount point. Other processes do not see it; it ends with the block."""

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
    """Mount a device read-only without a mount point, and yield its root directory.

    This changes neither the device nor its other mounts.

    Raises:
        OSError: mounting failed.
    """
    with _open(device, fstype, lambda: _detached_mount(device, fstype, options)) as directory:
        yield directory


@contextlib.contextmanager
def open_writable(device: str, fstype: str, options: str = "") -> Iterator[Dir]:
    """Mount a device without a mount point for writing, and yield its root directory.

    This works whatever the system has mounted, for example a sleeping automount or a read-only
    mount. A read-only file system becomes writable for the block, as
    :func:`bootc.fs.mounts.writable_filesystem` says. Other read-only mounts of it remain
    read-only. The changes are on the disk after ``Dir.sync``.

    Raises:
        OSError: mounting failed; EROFS if the device refuses writes.
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
            # The mount exists as long as this descriptor, which cannot read the directory itself.
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
    # The device is mounted read-only elsewhere. The kernel has one instance of the file system for
    # all mounts of a device, so the new mount shares it.
    return _mount_instance(device, fstype, ["ro", *options.split(",")], writable=True)


def _detached_mount(device: str, fstype: str, options: str) -> int:
    try:
        return _mount_instance(device, fstype, ["ro", *options.split(",")])
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
    # The device is mounted for writing elsewhere. The new mount shares this instance of the file
    # system, and only the mount is read-only. This is not the first attempt: if nothing else had
    # mounted a FAT, it would mark itself as in use, which is a write.
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
