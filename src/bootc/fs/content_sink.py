"""The destination of the content of files: a store, or only a hash.

:func:`bootc.fs.tree_read.read_tree` writes to a :class:`ContentSink`. The objects of a
repository are one, and :class:`bootc.repository.sink.ObjectSink` says what else they offer.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from bootc.formats.digest import Digest


class ContentWriter(Protocol):
    """Takes the content of one file."""

    def clone(self, fd: int) -> bool:
        """Share the blocks of a file as the whole content, before any :meth:`write`.

        Returns:
            False if the file system cannot share them. Then nothing has changed.
        """

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append; ``data`` is not valid after the call."""

    def write_zeros(self, count: int) -> None:
        """Append zeros, which take no room if the file system supports holes."""

    def commit(self) -> Digest:
        """Finish the content and return its name; no write may follow."""


class ContentSink(Protocol):
    """Takes the content of files."""

    def writer(self) -> AbstractContextManager[ContentWriter]:
        """Start a file whose content arrives in pieces. Without a commit nothing is stored."""
