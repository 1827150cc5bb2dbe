"""The kernel's mount calls, under their own names.

These are the file-descriptor API of Linux 5.2 and later (``fsopen`` to ``mount_setattr``) and the
three older calls without a successor. All of them raise ``OSError``. Its notes are the lines of
the log of the file system context, because ``EINVAL`` alone explains nothing.
"""

from __future__ import annotations

import ctypes
import os
import struct

from bootc.kernel.libc import (
    AT_EMPTY_PATH,
    SYS_FSCONFIG,
    SYS_FSMOUNT,
    SYS_FSOPEN,
    SYS_FSPICK,
    SYS_MOUNT_SETATTR,
    SYS_MOVE_MOUNT,
    SYS_OPEN_TREE,
    Argument,
    call,
    syscall,
)

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1

FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSCONFIG_CMD_RECONFIGURE = 7

FSPICK_CLOEXEC = 1
FSPICK_EMPTY_PATH = 8

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
AT_RECURSIVE = 0x8000

MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08

MS_RDONLY = 0x1
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

CLONE_NEWNS = 0x00020000

_MOUNT_ATTR = struct.Struct("=QQQQ")  # attr_set, attr_clr, propagation, userns_fd
_LOG_LINE_MAX = 1024


def fsopen(fstype: str) -> int:
    """Open a context in which to configure a new filesystem instance."""
    return syscall(SYS_FSOPEN, fstype, FSOPEN_CLOEXEC)


def fsconfig_set_string(fs_fd: int, key: str, value: str) -> None:
    """Set ``key=value``."""
    _fsconfig(fs_fd, FSCONFIG_SET_STRING, key, value, 0)


def fsconfig_set_flag(fs_fd: int, key: str) -> None:
    """Set an option that has no value."""
    _fsconfig(fs_fd, FSCONFIG_SET_FLAG, key, None, 0)


def fsconfig_create(fs_fd: int) -> None:
    """Create the filesystem instance as configured."""
    _fsconfig(fs_fd, FSCONFIG_CMD_CREATE, None, None, 0)


def fspick(fd: int) -> int:
    """Open a context in which to reconfigure the filesystem of a mount, open at its root."""
    return syscall(SYS_FSPICK, fd, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH)


def fsconfig_reconfigure(fs_fd: int) -> None:
    """Change the filesystem instance as configured."""
    _fsconfig(fs_fd, FSCONFIG_CMD_RECONFIGURE, None, None, 0)


def fsmount(fs_fd: int, *, attrs: int = 0) -> int:
    """Return a detached mount (``MOUNT_ATTR_*``) of a created filesystem."""
    try:
        return syscall(SYS_FSMOUNT, fs_fd, FSMOUNT_CLOEXEC, attrs)
    except OSError as exc:
        _note_log(exc, fs_fd)
        raise


def open_tree(dir_fd: int, path: str, flags: int = 0) -> int:
    """Open a mount object; with ``OPEN_TREE_CLONE`` a detached copy of it.

    A symlink at the end of ``path`` is followed.
    """
    return syscall(SYS_OPEN_TREE, dir_fd, path, flags | OPEN_TREE_CLOEXEC)


def move_mount(from_fd: int, from_path: str, to_fd: int, to_path: str, *, flags: int = 0) -> None:
    """Attach a detached mount, or move an attached one. An empty path means the descriptor."""
    if not from_path:
        flags |= MOVE_MOUNT_F_EMPTY_PATH
    if not to_path:
        flags |= MOVE_MOUNT_T_EMPTY_PATH
    syscall(SYS_MOVE_MOUNT, from_fd, from_path, to_fd, to_path, flags)


def mount_setattr(fd: int, *, set_attrs: int = 0, propagation: int = 0) -> None:
    """Change attributes of one mount; mounts below it are not changed."""
    packed = _MOUNT_ATTR.pack(set_attrs, 0, propagation, 0)
    buffer = ctypes.create_string_buffer(packed, _MOUNT_ATTR.size)
    syscall(SYS_MOUNT_SETATTR, fd, "", AT_EMPTY_PATH, buffer, _MOUNT_ATTR.size)


def mount(source: str | None, target: str, fstype: str | None, flags: int, data: str = "") -> None:
    """Mount with the older system call."""
    call("mount", source, target, fstype, flags, data)


def umount2(path: str, flags: int = 0) -> None:
    """Unmount the topmost mount at a path."""
    call("umount2", path, flags)


def unshare(flags: int) -> None:
    """Leave shared namespaces; ``os.unshare`` exists only since Python 3.12."""
    call("unshare", flags)


def setns(namespace_fd: int, kind: int) -> None:
    """Enter the namespace of a descriptor; ``os.setns`` exists only since Python 3.12."""
    call("setns", namespace_fd, kind)


def _fsconfig(fs_fd: int, command: int, key: str | None, value: Argument, aux: int) -> None:
    try:
        syscall(SYS_FSCONFIG, fs_fd, command, key, value, aux)
    except OSError as exc:
        _note_log(exc, fs_fd)
        raise


def _note_log(exc: OSError, fs_fd: int) -> None:
    """Move the context's log into notes. Each read returns one line, then ENODATA."""
    while True:
        try:
            line = os.read(fs_fd, _LOG_LINE_MAX)
        except OSError:
            return
        # "e ", "w " or "i " precede the text.
        exc.add_note(line.decode("utf-8", "backslashreplace").strip()[2:])
