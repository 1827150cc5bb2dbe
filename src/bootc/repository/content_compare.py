"""Compares the content of a stored object with what should be there."""

from __future__ import annotations

import os

from bootc.repository.sealing import DAMAGE

_COMPARE_BYTES = 1 << 20


def has_content(fd: int, content: bytes | int) -> bool:
    """Tell whether a stored file has a content; it has another one if it cannot be read.

    Args:
        fd: The stored file, open for reading.
        content: The content, or the descriptor of a file that has it. Its position stays.
    """
    at = 0
    while True:
        if isinstance(content, int):
            expected = os.pread(content, _COMPARE_BYTES, at)
        else:
            expected = content[at : at + _COMPARE_BYTES]
        try:
            found = os.pread(fd, _COMPARE_BYTES, at)
        except OSError as exc:
            if exc.errno in DAMAGE:
                return False
            raise
        if found != expected:
            return False
        if not found:
            return True
        at += len(found)
