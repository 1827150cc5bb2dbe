"""Stored content compared with content at hand.

Owns: which errors mean that a file is damaged. Promises: a stored file that cannot be
read for its own fault counts as a different one; any other error is raised.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

_CHUNK_BYTES = 1 << 20
#: Errors that are the content's fault or the medium's, and come again: EINVAL is how ext4
#: refuses a file whose fs-verity descriptor is damaged. Any other error says nothing about
#: the file (permissions, memory), and must not be taken for damage.
DAMAGE = frozenset({errno.EIO, errno.EINVAL, errno.EUCLEAN, errno.EBADMSG})

#: Returns content from an offset, at most so many bytes, none at the end.
Reader = Callable[[int, int], bytes | memoryview]


def reader_of(source: bytes | int) -> Reader:
    """Return what reads bytes, or an open file."""
    if isinstance(source, int):
        return lambda offset, count: os.pread(source, count, offset)
    view = memoryview(source)
    return lambda offset, count: view[offset : offset + count]


def equal(stored: Reader, content: Reader) -> bool:
    """Tell whether a stored file has this content."""
    offset = 0
    while True:
        expected = content(offset, _CHUNK_BYTES)
        try:
            found = stored(offset, _CHUNK_BYTES)
        except OSError as exc:
            if exc.errno in DAMAGE:
                return False
            raise
        if found != expected:
            return False
        if not found:
            return True
        offset += len(found)
