"""File system calls Python's ``os`` lacks, under their kernel names.

Sources: openat2(2), rename(2), syncfs(2), ioctl_ficlonerange(2), ioctl_iflags(2), and
``linux/fs.h``, ``linux/openat2.h`` for the numbers.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import struct

from bootc.kernel import libc

SYS_OPENAT2 = 437

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

FICLONE = 0x40049409
FIFREEZE = 0xC0045877
FITHAW = 0xC0045878
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602

#: The flags of ``chattr +i`` and ``chattr +a``. Setting them takes CAP_LINUX_IMMUTABLE.
FS_IMMUTABLE_FL = 0x10
FS_APPEND_FL = 0x20

_OPEN_HOW = struct.Struct("=QQQ")
_EAGAIN_ATTEMPTS = 64
#: The ioctls read and write an int, although their numbers contain the size of a long.
_INODE_FLAGS = struct.Struct("=I4x")


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int, resolve: int) -> int:
    """Open a path under restrictions (``RESOLVE_*``) on how it may be resolved."""
    how = ctypes.create_string_buffer(_OPEN_HOW.pack(flags, mode, resolve), _OPEN_HOW.size)
    for attempt in range(_EAGAIN_ATTEMPTS):
        try:
            return libc.syscall(SYS_OPENAT2, dirfd, path, how, _OPEN_HOW.size)
        except OSError as exc:
            # EAGAIN: another process renamed or mounted while the kernel resolved a "..".
            last = attempt == _EAGAIN_ATTEMPTS - 1
            if exc.errno not in (errno.EAGAIN, errno.EINTR) or last:
                raise
    raise AssertionError("unreachable")


def renameat2(olddirfd: int, old: str, newdirfd: int, new: str, flags: int) -> None:
    """Rename with ``RENAME_NOREPLACE`` or ``RENAME_EXCHANGE``."""
    try:
        libc.call("renameat2", olddirfd, old, newdirfd, new, flags)
    except OSError as exc:
        exc.filename, exc.filename2 = old, new
        raise


def syncfs(fd: int) -> None:
    """Write the cached data of the file system that contains ``fd`` to its device."""
    libc.call("syncfs", fd)


def ficlone(dst_fd: int, src_fd: int) -> None:
    """Make the destination share the source's blocks (EOPNOTSUPP or EXDEV if it cannot)."""
    fcntl.ioctl(dst_fd, FICLONE, src_fd)


def get_inode_flags(fd: int) -> int:
    """Return the ``FS_*_FL`` flags of a file or directory.

    Raises:
        OSError: ENOTTY or EOPNOTSUPP if the file system has no flags.
    """
    answer = fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(_INODE_FLAGS.size))
    (flags,) = _INODE_FLAGS.unpack(answer)
    return int(flags)


def set_inode_flags(fd: int, flags: int) -> None:
    """Set the ``FS_*_FL`` flags of a file or directory, all of them at once.

    Raises:
        OSError: as :func:`get_inode_flags`; EPERM if CAP_LINUX_IMMUTABLE is missing.
    """
    fcntl.ioctl(fd, FS_IOC_SETFLAGS, _INODE_FLAGS.pack(flags))


def freeze_and_thaw(fd: int) -> None:
    """Write a file system back to its blocks, so that its journal is empty.

    Writers wait in the meantime.

    Raises:
        OSError: EOPNOTSUPP if the file system cannot be frozen, EBUSY if it is frozen already.
    """
    fcntl.ioctl(fd, FIFREEZE, 0)
    fcntl.ioctl(fd, FITHAW, 0)
