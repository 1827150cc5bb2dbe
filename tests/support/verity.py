"""A stand-in for the kernel's fs-verity where this machine has none.

It keeps the digest in an extended attribute of the inode, so that copies, links and
re-used inode numbers behave as with the real thing. It does not make files immutable.
"""

from __future__ import annotations

import errno
import os

from bootc.formats.digest import Algorithm
from bootc.formats.verity import VerityHasher

_XATTR = "user.test.verity"


class FakeVerity:
    """Implements :class:`bootc.repository.sealing.Verity`.

    Args:
        busy: How many times ``enable`` says that a writer exists.
        error: What every call fails with, if anything.
    """

    def __init__(self, *, busy: int = 0, error: int | None = None) -> None:
        self.busy = busy
        self.error = error
        self.enabled: list[int] = []

    def enable(self, fd: int, algorithm: int) -> None:
        self._fail()
        assert os.get_inheritable(fd) is False
        with open(f"/proc/self/fdinfo/{fd}") as info:
            flags = next(int(line.split()[1], 8) for line in info if line.startswith("flags"))
        assert flags & os.O_ACCMODE == os.O_RDONLY, "enabled through a writable descriptor"
        if self.busy:
            self.busy -= 1
            raise OSError(errno.ETXTBSY, os.strerror(errno.ETXTBSY))
        hasher = VerityHasher(Algorithm(algorithm))
        offset = 0
        while chunk := os.pread(fd, 1 << 20, offset):
            hasher.update(chunk)
            offset += len(chunk)
        self.enabled.append(os.fstat(fd).st_ino)
        os.setxattr(fd, _XATTR, bytes([algorithm]) + hasher.digest().raw)

    def measure(self, fd: int) -> tuple[int, bytes]:
        self._fail()
        try:
            value = os.getxattr(fd, _XATTR)
        except OSError as exc:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA)) from exc
        return value[0], value[1:]

    def _fail(self) -> None:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
