"""Destinations for the content of files: objects of a repository, or only their digests.

The code that unpacks layers and walks directories writes to an :class:`ObjectSink`. There
are two: a repository's ``Objects``, and :class:`DigestOnly`, which stores nothing and serves
to compute the id of an image.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Protocol

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.verity import VerityHasher, verity_digest


class ObjectWriter(Protocol):
    """Takes the content of one object."""

    def clone(self, fd: int) -> bool:
        """Share the blocks of a file as the whole content, before any :meth:`write`.

        Returns:
            False where that cannot be; nothing has changed then.
        """

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append to the object."""

    def write_zeros(self, count: int) -> None:
        """Append zeros, which take no room where the file system knows holes."""

    def commit(self) -> Digest:
        """Finish the object and return its name; nothing may be written after."""


class ObjectSink(Protocol):
    """Takes objects: a repository stores them, :class:`DigestOnly` only hashes them."""

    @property
    def algorithm(self) -> Algorithm:
        """What objects are named by."""

    def put(self, data: bytes) -> Digest:
        """Store an object that is at hand as a whole."""

    def writer(self) -> AbstractContextManager[ObjectWriter]:
        """Start an object whose content arrives in pieces; without a commit it never existed."""


class DigestOnly:
    """An :class:`ObjectSink` that stores nothing."""

    __slots__ = ("algorithm",)

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm

    def put(self, data: bytes) -> Digest:
        """Return the name ``data`` would have."""
        return verity_digest(data, self.algorithm)

    def writer(self) -> AbstractContextManager[ObjectWriter]:
        """Return a writer that only hashes."""
        return contextlib.nullcontext(_HashingWriter(self.algorithm))


class _HashingWriter:
    __slots__ = ("_hasher",)

    def __init__(self, algorithm: Algorithm) -> None:
        self._hasher = VerityHasher(algorithm)

    def clone(self, fd: int) -> bool:
        return False  # there is nothing to share them with

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._hasher.update(data)

    def write_zeros(self, count: int) -> None:
        self._hasher.update_zeros(count)

    def commit(self) -> Digest:
        return self._hasher.digest()
