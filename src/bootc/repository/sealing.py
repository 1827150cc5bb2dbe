"""Enabling fs-verity on a file, also while another process still has it open for writing.

Owns: the seam to the kernel's ioctls (:class:`Verity`) and the protocol around
them (composefs, "Verity requirement"): open for reading only, no writers left,
and when some process still holds the file open for writing, try again, then copy.
"""

from __future__ import annotations

import errno
import time
from typing import Protocol

from bootc.errors import Error
from bootc.formats.digest import Algorithm
from bootc.fs.atomic import Tmpfile
from bootc.fs.dir import Dir
from bootc.fs.mounts import filesystem_of
from bootc.kernel import fsverity

#: Errors of the ioctls if the file system or the kernel has no fs-verity.
UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS})
#: The file systems that can have it.
_ABLE = frozenset({"ext4", "f2fs", "btrfs"})
#: Errors that damaged content or a damaged medium causes, permanently. ext4 answers EINVAL for
#: a file whose fs-verity descriptor is damaged. Any other error (permissions, memory) says
#: nothing about the file, and is no damage.
DAMAGE = frozenset({errno.EIO, errno.EINVAL, errno.EUCLEAN, errno.EBADMSG})
#: Errors of reading a stored object that storing it again heals.
HEALED = DAMAGE | {errno.ENOENT, errno.EFBIG}

_BUSY_RETRIES = 3
_BUSY_WAIT_S = 0.001
_COPIES = 3


class Verity(Protocol):
    """The two ioctls. The module :mod:`bootc.kernel.fsverity` is one."""

    def enable(self, fd: int, algorithm: int) -> None:
        """Make the file immutable and its digest known to the kernel."""

    def measure(self, fd: int) -> tuple[int, bytes]:
        """Return the file's algorithm number and digest, as the kernel enforces them."""


class VerityMissing(Error):
    """fs-verity is required, and a file or file system does not have it."""


def without_verity(directory: Dir) -> VerityMissing:
    """Return the error for a directory in whose file system a file got no fs-verity.

    The cause is one of three: the kernel, the type of the file system, or the way it was made.
    """
    filesystem = filesystem_of(directory)
    if filesystem not in _ABLE:
        hint = "use ext4 (mkfs.ext4 -O verity) or btrfs"
    elif fsverity.is_in_kernel() is False:
        return VerityMissing(
            f"the running kernel does not support fs-verity, so {directory.path} cannot have it",
            hint="boot a kernel with CONFIG_FS_VERITY",
        )
    elif filesystem == "ext4":
        hint = "it was made without: tune2fs -O verity DEVICE adds it"
    else:
        hint = "use ext4 (mkfs.ext4 -O verity), or a newer kernel"
    return VerityMissing(
        f"{directory.path} lies in a file system ({filesystem}) that does not support fs-verity",
        hint=hint,
    )


def enable(tmpfile: Tmpfile, algorithm: Algorithm, verity: Verity) -> None:
    """Finish writing a file and enable fs-verity on it.

    A child process between fork and exec holds our descriptors for a moment, also the writable
    one. The kernel then answers ETXTBSY. A copy with a new inode is open in no other process.

    Raises:
        OSError: the kernel refused (:data:`UNSUPPORTED` where it cannot).
    """
    tmpfile.reopen()
    for _ in range(_COPIES):
        for _ in range(1 + _BUSY_RETRIES):
            try:
                verity.enable(tmpfile.fileno(), algorithm.value)
            except OSError as exc:
                if exc.errno != errno.ETXTBSY:
                    raise
                time.sleep(_BUSY_WAIT_S)
            else:
                return
        tmpfile.renew()
        tmpfile.reopen()
    verity.enable(tmpfile.fileno(), algorithm.value)


def enable_in_place(fd: int, algorithm: Algorithm, verity: Verity) -> None:
    """Enable fs-verity on a file that must not be copied; a file that has it already is fine.

    Raises:
        OSError: the kernel refused, also with ETXTBSY.
    """
    try:
        verity.enable(fd, algorithm.value)
    except OSError as exc:
        if exc.errno != errno.EEXIST:
            raise


def measure(fd: int, verity: Verity) -> tuple[int, bytes] | None:
    """Return the kernel's algorithm number and digest, or None where the file has none."""
    try:
        return verity.measure(fd)
    except OSError as exc:
        if exc.errno == errno.ENODATA or exc.errno in UNSUPPORTED:
            return None
        raise
