"""Stores an object whose content arrives in pieces."""

from __future__ import annotations

import os
from typing import Protocol

from bootc.errors import doing
from bootc.formats.digest import Digest
from bootc.formats.verity import VerityHasher
from bootc.fs.atomic import Tmpfile
from bootc.kernel import files


class Store(Protocol):
    """The store, as far as the writer needs it."""

    def storing(self) -> doing:
        """Name the store in errors."""

    def add_file(self, tmpfile: Tmpfile, digest: Digest | None = None) -> tuple[Digest, bool]:
        """Make a file an object; return its name, and whether it is new."""


class StoringWriter:
    """A :class:`~bootc.fs.content_sink.ContentWriter` that stores what it is given.

    Args:
        objects: The store.
        tmpfile: An empty file of the store.
        hasher: Computes the digest while the content passes; None if the kernel computes it.
    """

    __slots__ = ("_hasher", "_objects", "_tmpfile")

    def __init__(self, objects: Store, tmpfile: Tmpfile, hasher: VerityHasher | None) -> None:
        self._objects = objects
        self._tmpfile = tmpfile
        self._hasher = hasher

    def clone(self, fd: int) -> bool:
        """Share the blocks of a file, and tell whether that worked."""
        try:
            files.ficlone(self._tmpfile.fileno(), fd)
        except OSError:
            # Copying needs the same access, and reports the real fault itself.
            return False
        # Nothing passes by here; what is hashed is the clone, which nobody else can change.
        self._hasher = None
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append bytes."""
        with self._objects.storing():
            self._tmpfile.write(data)
        if self._hasher is not None:
            self._hasher.update(data)

    def write_zeros(self, count: int) -> None:
        """Append a hole."""
        with self._objects.storing():
            fd = self._tmpfile.fileno()
            end = os.lseek(fd, 0, os.SEEK_CUR) + count
            os.ftruncate(fd, end)
            os.lseek(fd, end, os.SEEK_SET)
        if self._hasher is not None:
            self._hasher.update_zeros(count)

    def commit(self) -> Digest:
        """Store the object and return its name."""
        digest = None if self._hasher is None else self._hasher.digest()
        return self._objects.add_file(self._tmpfile, digest)[0]
