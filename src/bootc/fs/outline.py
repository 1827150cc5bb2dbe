"""Which files a part of an image has, as a tree whose content is read only when asked for.

The functions that find what an image boots with take a tree (:mod:`bootc.formats.tree`).
This makes one of an unpacked image without opening its files, so also of files that only
root may read. Links are entries like others, and mounts are not entered.

A regular file is :class:`External`, however small it is, and its digest is a number that
:meth:`Outline.open` knows. Owners, times and attributes are not read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.tree import Directory, External, Fifo, Inline, Leaf, Node, Stat, Symlink
from bootc.fs.dir import read_all
from bootc.fs.imageroot import ImageRoot
from bootc.fs.visit import visit

#: Files whose whole content somebody asks for are small: lists of arguments, policies.
MAX_CONTENT_BYTES = 1 << 24


class Outline:
    """A part of an image.

    Attributes:
        root: The tree: of the root only what was asked for, of that everything below.
    """

    def __init__(self, image: ImageRoot) -> None:
        self.root = Directory(Stat(0o755))
        self._image = image
        #: Where the files are whose number a digest is.
        self._paths: list[str] = []

    @classmethod
    def read(cls, image: ImageRoot, paths: Iterable[str]) -> Outline:
        """Look at some directories of an image, which must stay open.

        Args:
            image: The image.
            paths: The directories. One that is not there is not in the tree; one that is
                something else, or is behind a link, is there as what it is.

        Raises:
            OSError: something cannot be looked at.
        """
        outline = cls(image)
        for path in paths:
            outline._add(path)
        return outline

    def open(self, digest: Digest) -> int:
        """Return a read-only descriptor of a file of the tree."""
        path = self._path(digest)
        fd = self._image.open_file(path)
        if fd is None:
            raise FileNotFoundError(2, os.strerror(2), path)
        return fd

    def read_content(self, content: Inline | External) -> bytes:
        """Return the content of a small file of the tree.

        Raises:
            OSError: also with EFBIG, when it is larger than :data:`MAX_CONTENT_BYTES`.
        """
        assert isinstance(content, External), "outlines hold no content"
        fd = self.open(content.digest)
        try:
            return read_all(fd, self._path(content.digest), MAX_CONTENT_BYTES)
        finally:
            os.close(fd)

    def _add(self, path: str) -> None:
        directory = self.root
        here = ""
        for name in path.split("/"):
            here = f"{here}/{name}" if here else name
            info = self._image.stat(here)
            if info is None:
                return
            below = directory.entries.get(os.fsencode(name))
            if below is None:
                below = self._node(here, info)
                directory.entries[os.fsencode(name)] = below
            if not isinstance(below, Directory):
                return
            directory = below
        self._fill(directory, path)

    def _fill(self, top: Directory, path: str) -> None:
        opened = self._image.open_dir(path, same_mount=True)
        if opened is None:
            return
        nodes = {"": top}
        with opened:
            for visited in visit(opened):
                below = f"{path}/{visited.path}"
                node = self._node(below, visited.entry.stat(follow_symlinks=False))
                parent, _, name = visited.path.rpartition("/")
                nodes[parent].entries[os.fsencode(name)] = node
                if isinstance(node, Directory):
                    nodes[visited.path] = node

    def _node(self, path: str, info: os.stat_result) -> Node:
        metadata = Stat(stat.S_IMODE(info.st_mode))
        if stat.S_ISDIR(info.st_mode):
            return Directory(metadata)
        if stat.S_ISREG(info.st_mode):
            number = len(self._paths)
            self._paths.append(path)
            raw = number.to_bytes(Algorithm.SHA512.digest_size, "big")
            return Leaf(metadata, External(Digest(Algorithm.SHA512, raw), info.st_size))
        if stat.S_ISLNK(info.st_mode):
            return Leaf(metadata, Symlink(os.fsencode(self._image.readlink(path) or "")))
        # Nobody here tells pipes, sockets and devices apart.
        return Leaf(metadata, Fifo())

    def _path(self, digest: Digest) -> str:
        return self._paths[int.from_bytes(digest.raw, "big")]
