"""An unpacked image as a tree whose files are read only on demand.

The functions that find the kernel of an image, or that label its files, take a tree
(:mod:`bootc.formats.tree`). This module makes a tree of a directory, or of parts of it, without
opening files. Links are entries like others. Mounts do not belong to the image and are not
entered: a mount point is an empty directory, and a file with a mount over it is left out.

Metadata and hard links are those of the file system. Each regular file, however small, is an
:class:`External` whose digest is a number for :meth:`Outline.open`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.tree import Content, Directory, External, Inline, Leaf, Node, Stat
from bootc.fs.dir import read_all
from bootc.fs.imageroot import ImageRoot
from bootc.fs.tree_read import TreeChanged, read_xattrs, special_content
from bootc.fs.visit import is_mount_point, visit

#: Callers read only small files as a whole: lists of arguments, policies.
MAX_CONTENT_BYTES = 1 << 24
_NS_PER_S = 1_000_000_000


class Outline:
    """An image, or a part of one.

    Attributes:
        root: The tree. It has the requested directories with everything below, and their parents.
    """

    def __init__(self, image: ImageRoot, *, xattrs: bool) -> None:
        self._image = image
        self._with_xattrs = xattrs
        #: Path and identity of each regular file. A digest contains the index in this list.
        self._files: list[tuple[str, tuple[int, ...]]] = []
        self._leaves: dict[tuple[int, int], Leaf] = {}
        self.root = Directory(self._stat(image.dir.fileno(), os.fstat(image.dir.fileno())))

    @classmethod
    def read(
        cls, image: ImageRoot, paths: Iterable[str] = (".",), *, xattrs: bool = False
    ) -> Outline:
        """Read the tree of an image, which must stay open.

        Args:
            image: The image.
            paths: Directories of the image; by default its root. The tree does not have missing
                ones. It has files of other kinds, and links on the way, as they are.
            xattrs: Read extended attributes as well.

        Raises:
            OSError: a directory or a file cannot be examined.
        """
        outline = cls(image, xattrs=xattrs)
        for path in paths:
            outline._add(path)
        return outline

    def open(self, digest: Digest) -> int:
        """Return a read-only descriptor of a file of the tree.

        Raises:
            TreeChanged: the file has changed since the tree was read.
            OSError: it cannot be opened.
        """
        path, identity = self._file(digest)
        fd = self._image.open_regular(path)
        if fd is None:
            raise TreeChanged(path)
        if _identity(os.fstat(fd)) != identity:
            os.close(fd)
            raise TreeChanged(path)
        return fd

    def read_content(self, content: Inline | External) -> bytes:
        """Return the content of a small file of the tree.

        Raises:
            TreeChanged: the file has changed since the tree was read.
            OSError: also with EFBIG, if it is larger than :data:`MAX_CONTENT_BYTES`.
        """
        assert isinstance(content, External), "outlines hold no content"
        fd = self.open(content.digest)
        try:
            return read_all(fd, self._file(content.digest)[0], MAX_CONTENT_BYTES)
        finally:
            os.close(fd)

    def _add(self, path: str) -> None:
        directory, here = self.root, ""
        for name in path.split("/"):
            if name == ".":
                continue
            opened = self._image.open_dir(here or ".", same_mount=True)
            if opened is None:
                return
            here = f"{here}/{name}" if here else name
            with opened:
                below = directory.entries.get(os.fsencode(name))
                if below is None and (info := self._image.stat(here)) is not None:
                    below = self._node(opened.fileno(), name, here, info)
                    directory.entries[os.fsencode(name)] = below
            if not isinstance(below, Directory):
                return
            directory = below
        self._fill(directory, here)

    def _fill(self, top: Directory, path: str) -> None:
        opened = self._image.open_dir(path or ".", same_mount=True)
        if opened is None:
            return
        nodes = {"": top}
        with opened:
            for visited in visit(opened):
                info = visited.entry.stat(follow_symlinks=False)
                if not stat.S_ISDIR(info.st_mode) and is_mount_point(visited):
                    continue
                name = visited.entry.name
                below = f"{path}/{visited.path}" if path else visited.path
                node = self._node(visited.parent, name, below, info)
                nodes[visited.path.rpartition("/")[0]].entries[os.fsencode(name)] = node
                if isinstance(node, Directory):
                    nodes[visited.path] = node

    def _node(self, parent: int, name: str, path: str, info: os.stat_result) -> Node:
        # The xattr calls take no directory descriptor.
        target = b"/proc/self/fd/%d/%s" % (parent, os.fsencode(name))
        if stat.S_ISDIR(info.st_mode):
            return Directory(self._stat(target, info))
        inode = (info.st_dev, info.st_ino)
        leaf = self._leaves.get(inode)
        if leaf is None:
            leaf = Leaf(self._stat(target, info), self._content(parent, name, path, info))
            self._leaves[inode] = leaf
        return leaf

    def _content(self, parent: int, name: str, path: str, info: os.stat_result) -> Content:
        if not stat.S_ISREG(info.st_mode):
            return special_content(parent, name, info)
        number = len(self._files)
        self._files.append((path, _identity(info)))
        raw = number.to_bytes(Algorithm.SHA512.digest_size, "big")
        return External(Digest(Algorithm.SHA512, raw), info.st_size)

    def _stat(self, target: int | bytes, info: os.stat_result) -> Stat:
        mtime_s, mtime_ns = divmod(info.st_mtime_ns, _NS_PER_S)
        xattrs = read_xattrs(target) if self._with_xattrs else {}
        mode = stat.S_IMODE(info.st_mode)
        return Stat(mode, info.st_uid, info.st_gid, mtime_s, mtime_ns, xattrs)

    def _file(self, digest: Digest) -> tuple[str, tuple[int, ...]]:
        return self._files[int.from_bytes(digest.raw, "big")]


def _identity(info: os.stat_result) -> tuple[int, ...]:
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns
