"""Finds the ranges of a file that hold data; the rest are holes.

A hole reads as zeros and takes no space. A file of one tebibyte may hold only a few bytes
of data.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

_SECTOR_BYTES = 512


def data_bytes(info: os.stat_result) -> int:
    """Return how many bytes of a file are data, estimated by its space on the disk."""
    return min(info.st_size, info.st_blocks * _SECTOR_BYTES)


def data_extents(fd: int, info: os.stat_result) -> Iterator[tuple[int, int]]:
    """Yield start and end of every run of data in a file, in order; the rest is holes.

    Moves the position of the descriptor.

    Args:
        fd: The file.
        info: The result of ``fstat``; data beyond its size is ignored.

    Raises:
        OSError: reading failed.
    """
    size = info.st_size
    if data_bytes(info) == size:
        # The file is not sparse. This common case needs no system call.
        if size:
            yield 0, size
        return
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return  # only a hole is left
            if exc.errno != errno.EINVAL:
                raise
            yield end, size  # the file system does not report holes
            return
        if start >= size:
            return
        end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, end
