"""Objects of a repository as files of one directory, by the hex of their digest."""

from __future__ import annotations

import os
from pathlib import Path

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.tree import External, Leaf, Stat
from bootc.formats.verity import verity_digest


class ObjectDirectory:
    """Such a directory, which exists."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, digest: Digest) -> int:
        return os.open(self.path / digest.hex, os.O_RDONLY)

    def leaf(self, data: bytes) -> Leaf:
        """Store content and return a file of an image that has it."""
        digest = verity_digest(data, Algorithm.SHA512)
        (self.path / digest.hex).write_bytes(data)
        return Leaf(Stat(), External(digest, len(data)))

    def damage(self, leaf: Leaf, data: bytes) -> None:
        """Put other content in the place of a file's."""
        assert isinstance(leaf.content, External)
        (self.path / leaf.content.digest.hex).write_bytes(data)

    def lose(self, leaf: Leaf) -> None:
        """Remove the content of a file."""
        assert isinstance(leaf.content, External)
        (self.path / leaf.content.digest.hex).unlink()
