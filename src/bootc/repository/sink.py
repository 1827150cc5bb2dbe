"""The destinations of objects: a repository, or only their hash.

:mod:`bootc.oci.unpack` and :func:`bootc.fs.tree_read.read_tree` write to an
:class:`ObjectSink`. The ``Objects`` of a repository are one. :class:`DigestOnly` is the other:
it computes the name of an image and stores nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.verity import VerityHasher, verity_digest, verity_digests
from bootc.fs.content_sink import ContentSink, ContentWriter


class ObjectSink(ContentSink, Protocol):
    """A :class:`~bootc.fs.content_sink.ContentSink` that names content by one algorithm."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of the names of objects."""

    def put(self, data: bytes) -> Digest:
        """Store an object whose whole content is in memory."""

    def put_many(self, contents: Sequence[bytes]) -> list[Digest]:
        """Store objects whose contents are in memory; several threads may call this at once."""


class DigestOnly:
    """An :class:`ObjectSink` that stores nothing."""

    __slots__ = ("algorithm",)

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm

    def put(self, data: bytes) -> Digest:
        """Return the name ``data`` would have."""
        return verity_digest(data, self.algorithm)

    def put_many(self, contents: Sequence[bytes]) -> list[Digest]:
        """Return the names that the contents would have."""
        return verity_digests(contents, self.algorithm)

    def writer(self) -> AbstractContextManager[ContentWriter]:
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
