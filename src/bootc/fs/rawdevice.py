"""Reads and writes partitions without a file system.

The same functions work on regular files. All data is on the disk when a function returns.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable

from bootc.fs.dir import naming
from bootc.fs.readback import Written

#: No disk has larger sectors, and direct writes must be whole sectors.
_BLOCK_BYTES = 4096


def size_of(path: str) -> int:
    """Return the size of a partition.

    Raises:
        OSError: it cannot be opened.
    """
    with naming(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)


def read_start(path: str, size_bytes: int) -> bytes:
    """Return the first bytes of a partition.

    Raises:
        OSError: reading failed.
    """
    with naming(path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, size_bytes, 0)
        finally:
            os.close(fd)


def replace_start(path: str, data: bytes) -> None:
    """Replace the first bytes of a partition, by one write of whole sectors.

    The rest of the sectors is kept. ``data`` is small enough for the first sector, so a disk
    writes all of it or nothing.

    Raises:
        OSError: writing failed.
    """
    assert len(data) <= 512, "the smallest sector has this size"
    with naming(path):
        block = bytearray(read_start(path, _BLOCK_BYTES).ljust(_BLOCK_BYTES, b"\0"))
        block[: len(data)] = data
        fd = _open_direct(path)
        try:
            _write_block(fd, bytes(block))
        finally:
            os.close(fd)


def write_content(path: str, chunks: Iterable[bytes]) -> None:
    """Write a partition from its first byte on, and compare what the disk then has.

    Raises:
        NotOnDisk: the disk has another content.
        OSError: writing failed.
    """
    written = Written()
    with naming(path):
        # The kernel refuses this for a partition that is mounted.
        fd = os.open(path, os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC)
        try:
            for chunk in chunks:
                _write_chunk(fd, chunk)
                written.update(chunk)
            os.fsync(fd)
        finally:
            os.close(fd)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            written.check(fd, path)
        finally:
            os.close(fd)


def _open_direct(path: str) -> int:
    flags = os.O_WRONLY | os.O_DSYNC | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_DIRECT)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        # A regular file in memory, for example.
        return os.open(path, flags)


def _write_block(fd: int, block: bytes) -> None:
    # Memory for a direct write must begin at a page.
    with mmap.mmap(-1, len(block)) as memory:
        memory[:] = block
        if os.pwrite(fd, memory, 0) != len(block):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


def _write_chunk(fd: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(fd, view) :]
