"""The two inode flags that protect a file or directory: immutable and append-only (chattr(1)).

No user, not even root, can change, rename or remove a file with one of the flags, or the entries
of a directory with one of them. File systems without these flags behave as if none were set.
"""

from __future__ import annotations

import errno

from bootc.kernel import files

FLAGS = files.FS_IMMUTABLE_FL | files.FS_APPEND_FL

#: The errors of a file system without inode flags.
_NO_FLAGS = (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def protection_of(fd: int) -> int:
    """Return which of the flags a file or directory has.

    Raises:
        OSError: they cannot be read.
    """
    try:
        return files.get_inode_flags(fd) & FLAGS
    except OSError as exc:
        if exc.errno in _NO_FLAGS:
            return 0
        raise


def protect(fd: int, protection: int) -> None:
    """Give a file or directory exactly these of the flags.

    Raises:
        OSError: they cannot be changed.
    """
    files.set_inode_flags(fd, files.get_inode_flags(fd) & ~FLAGS | protection)


def clear_protection(fd: int) -> int:
    """Clear the flags of a file or directory, and return those it had.

    Raises:
        OSError: they cannot be cleared.
    """
    had = protection_of(fd)
    if had:
        try:
            protect(fd, 0)
        except OSError as exc:
            exc.strerror = (
                f"it is immutable or append-only, and that cannot be lifted: {exc.strerror}"
            )
            raise
    return had
