"""Compares what a disk has with what was just written to it."""

from __future__ import annotations

import hashlib
import os

from bootc.errors import Error

_CHUNK_BYTES = 1 << 20


class NotOnDisk(Error):
    """A file or a partition has another content than the one just written."""


class Written:
    """The content that is being written to a file or to the start of a partition."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._size_bytes = 0

    def update(self, data: bytes) -> None:
        """Note the next data."""
        self._hash.update(data)
        self._size_bytes += len(data)

    def check(self, fd: int, path: str) -> None:
        """Read what was written and synced, and compare it.

        Args:
            fd: A descriptor to read from.
            path: What the error names.

        Raises:
            NotOnDisk: the disk has another content.
            OSError: reading failed.
        """
        # The comparison must not read what the kernel has in memory.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        found, at = hashlib.sha256(), 0
        while at < self._size_bytes:
            data = os.pread(fd, min(_CHUNK_BYTES, self._size_bytes - at), at)
            if not data:
                break
            found.update(data)
            at += len(data)
        if found.digest() != self._hash.digest():
            raise NotOnDisk(
                f"{path} does not have the content that was written to it",
                hint="the disk may be failing; see the messages of the kernel: dmesg",
            )
