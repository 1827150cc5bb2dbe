"""How a file gets fs-verity, and what to do where there is none.

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

#: What the ioctls answer where the file system or the kernel has no fs-verity.
UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS})
#: Errors that are the content's fault or the medium's, and come again: EINVAL is how ext4
#: refuses a file whose fs-verity descriptor is damaged. Any other error says nothing about
#: the file (permissions, memory), and must not be taken for damage.
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
    """fs-verity is demanded, and something lacks it."""


def enable(tmpfile: Tmpfile, algorithm: Algorithm, verity: Verity) -> None:
    """Finish writing a file and enable fs-verity on it.

    A child process between fork and exec holds our descriptors for a moment, the writable one
    too; ETXTBSY is that, and a copy under a new inode is what nobody else can hold.

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
    """Enable fs-verity on a file that is not ours to copy; having it already is fine.

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
