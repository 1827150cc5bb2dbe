"""Reads an image back into the tree it was made from.

The reader is safe on any bytes (see ``image``). It refuses images whose names, link counts
or entries ``.`` and ``..`` contradict each other.

It removes everything that the writer adds, so writing the tree gives the same image. It
removes marks of whiteouts only where the writer puts them; elsewhere they belong to the
user. In an image without composefs header (``mkfs.erofs``) it removes nothing.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs.image import (
    Image,
    InvalidImage,
    Record,
    check_headers,
    chunk_table_bytes,
    unpack_headers,
)
from bootc.formats.erofs.structs import (
    CHUNK_BASED,
    FLAT_PLAIN,
    MAX_SYMLINK_BYTES,
    METACOPY,
    OPAQUE_MARKS,
    OVERLAY,
    OVERLAY_ESCAPED,
    REDIRECT,
    SLOT_SIZE,
    WHITEOUT_MARKS,
    WHITEOUTS_MARKS,
)
from bootc.formats.tree import (
    MAX_DEPTH,
    BlockDevice,
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Redirected,
    Socket,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)

__all__ = ["InvalidImage", "read_erofs"]

_STUB_NAME = re.compile(rb"[0-9a-f]{2}\Z")
#: Metacopy: version 0, length, flags 0, algorithm; then the digest.
_METACOPY_HEADER = struct.Struct("<BBBB")
_TYPE_MASK = 0o170000


class Paths(dict[bytes, "Paths"]):
    """The names to read in a directory, each with the names below; if empty, all names."""

    @classmethod
    def of(cls, paths: Iterable[str]) -> Paths:
        root = cls()
        for path in paths:
            below = root
            for name in path.encode().split(b"/"):
                below = below.setdefault(name, cls())
        return root


def read_erofs(raw: bytes, *, below: Iterable[str] = ()) -> Directory:
    """Return the tree of an image: composefs 0, 1 or 2, or ``mkfs.erofs`` without compression.

    Args:
        raw: The whole image.
        below: Paths from the root, none inside another. Entries elsewhere are neither read nor
            checked, and directories on the way have no xattrs. By default, all are read.

    Raises:
        InvalidImage: with the offset of what is wrong.
    """
    headers = unpack_headers(raw)
    check_headers(headers, len(raw))
    reader = TreeReader(Image(raw, headers), Paths.of(below))
    return reader.read(headers.superblock.root_nid)


@dataclass(slots=True)
class Frame:
    """A directory being read."""

    nid: int
    inode: Record
    pending: Iterator[tuple[bytes, int]]
    directory: Directory
    #: The names to read in it.
    paths: Paths
    subdirectories: int = 0
    has_whiteouts: bool = False


class TreeReader:
    """Walks from the root; an inode is read once, whatever points at it."""

    def __init__(self, image: Image, paths: Paths) -> None:
        self._image = image
        self._paths = paths
        self._version = image.headers.version
        self._epoch1 = self._version in (0, 1)
        #: Whether devices 0:0 are composefs's own.
        self.hides_devices = self._epoch1
        self._directories: set[int] = set()
        self.leaves: dict[int, Leaf] = {}
        #: Of leaves that announce more than one name: what they announce, and what is found.
        self.announced: dict[int, int] = {}
        self._found: dict[int, int] = {}
        self._stack: list[Frame] = []

    def read(self, root_nid: int) -> Directory:
        inode = self.inode(root_nid)
        if not stat.S_ISDIR(inode.mode):
            raise InvalidImage(inode.offset, "the root is no directory")
        root = self._enter(root_nid, inode, self._paths)
        while self._stack:
            frame = self._stack[-1]
            for name, nid in frame.pending:
                if self.add(frame, name, nid):
                    break
            else:
                self.leave(self._stack.pop())
        if self._paths:
            return root
        for nid, announced in self.announced.items():
            found = self._found[nid]
            if announced != found:
                self.distrust(nid * SLOT_SIZE, f"{announced} links announced, {found} found")
        return root

    def distrust(self, offset: int, why: str) -> None:
        """Refuse an image that contradicts itself. ``libcomposefs`` reads on instead.

        Raises:
            InvalidImage: always.
        """
        raise InvalidImage(offset, why)

    def inode(self, nid: int) -> Record:
        return self._image.inode(nid)

    def _enter(self, nid: int, inode: Record, paths: Paths) -> Directory:
        if len(self._stack) + 1 >= MAX_DEPTH:
            raise InvalidImage(inode.offset, f"directories nested deeper than {MAX_DEPTH}")
        self._directories.add(nid)
        directory = Directory(_stat(inode))
        found = self._image.entries(inode)
        names = [name for name, _, _ in found]
        entries = {name: nid for name, nid, _ in found}
        if len(entries) != len(names) or names != sorted(names):
            bad = next(b for a, b in pairwise(names) if b <= a)
            raise InvalidImage(inode.offset, f"directory entry {bad!r} is out of order")
        parent = self._stack[-1].nid if self._stack else nid
        for name, expected in ((b".", nid), (b"..", parent)):
            if entries.pop(name, None) != expected:
                raise InvalidImage(inode.offset, f"{name.decode()} is missing or leads elsewhere")
        if paths:
            entries = {name: entries[name] for name in paths if name in entries}
        self._stack.append(Frame(nid, inode, iter(entries.items()), directory, paths))
        return directory

    def add(self, frame: Frame, name: bytes, nid: int) -> bool:
        """Put an entry into its directory; True if it is one itself, now on the stack."""
        leaf = self.leaves.get(nid)
        if leaf is not None:
            if nid not in self.announced:
                self.distrust(nid * SLOT_SIZE, "1 links announced, 2 found")
            self._found[nid] = self._found.get(nid, 1) + 1
            frame.directory.entries[name] = leaf
            return False
        if nid in self._directories:
            raise InvalidImage(nid * SLOT_SIZE, "a directory appears twice")
        inode = self.inode(nid)
        file_type = inode.mode & _TYPE_MASK
        if file_type == stat.S_IFREG:
            leaf = self._file(frame, inode)
        elif file_type == stat.S_IFDIR:
            frame.subdirectories += 1
            paths = frame.paths[name] if frame.paths else frame.paths
            frame.directory.entries[name] = self._enter(nid, inode, paths)
            return True
        elif file_type == stat.S_IFCHR and inode.u == 0 and self.hides_devices:
            if len(self._stack) > 1 or not _STUB_NAME.match(name):
                self.distrust(inode.offset, "a device 0:0 that is no stub of the root")
            return False
        else:
            content = self._special(file_type, inode)
            self.restore_names(inode.xattrs, ())
            leaf = Leaf(_stat(inode), content)
        self.leaves[nid] = leaf
        frame.directory.entries[name] = leaf
        if inode.nlink != 1:
            self.announced[nid] = inode.nlink
            self._found[nid] = 1
        return False

    def leave(self, frame: Frame) -> None:
        inode = frame.inode
        if frame.paths:
            inode.xattrs.clear()
            return
        found = 2 + frame.subdirectories
        if inode.nlink != found:
            self.distrust(inode.offset, f"{inode.nlink} links announced, {found} found")
        added: tuple[bytes, ...] = ()
        if frame.has_whiteouts:
            added = WHITEOUTS_MARKS
            if self._version != 0:
                added += OPAQUE_MARKS
        self.restore_names(inode.xattrs, added)

    def _file(self, frame: Frame, inode: Record) -> Leaf:
        xattrs = inode.xattrs
        content: Content
        if self._version is None:
            content = self._plain_file(inode)
        elif inode.layout == CHUNK_BASED:
            content = self.overlaid_file(inode, self._version)
        elif (
            self._epoch1
            and inode.size == 0
            and inode.layout == FLAT_PLAIN
            and WHITEOUT_MARKS[0] in xattrs
        ):
            frame.has_whiteouts = True
            if inode.nlink > 1:
                self.distrust(inode.offset, "a hard-linked whiteout")
            self.restore_names(xattrs, WHITEOUT_MARKS)
            return Leaf(_stat(inode), CharDevice(0))
        elif METACOPY in xattrs or REDIRECT in xattrs:
            raise InvalidImage(inode.offset, "a file has content both here and elsewhere")
        else:
            content = self._stored(inode)
        self.restore_names(xattrs, ())
        return Leaf(_stat(inode), content)

    def _stored(self, inode: Record) -> Inline:
        return Inline(b"".join([piece for _, piece in self._image.content(inode)]))

    def _plain_file(self, inode: Record) -> Content:
        if inode.layout != CHUNK_BASED:
            return self._stored(inode)
        data = self._image.chunks(inode)
        return Sparse(inode.size) if data is None else Inline(data)

    def overlaid_file(self, inode: Record, version: int) -> Content:
        """Return the place of a file's content, as its xattrs name it."""
        metacopy = inode.xattrs.pop(METACOPY, None)
        redirect = inode.xattrs.pop(REDIRECT, None)
        table = chunk_table_bytes(inode, version, has_digest=bool(metacopy))
        if table:
            self._image.check_holes(inode, table)
        if redirect is not None and not redirect.startswith(b"/"):
            raise InvalidImage(inode.offset, "the path of a file's content is not absolute")
        if metacopy:
            digest = _digest(inode, metacopy)
            if redirect is None:
                return Redirected(digest, inode.size, b"")
            if redirect[1:] == digest.object_path.encode():
                return External(digest, inode.size)
            return Redirected(digest, inode.size, redirect[1:])
        if redirect is None:
            return Sparse(inode.size)
        return Unverified(redirect[1:], inode.size)

    def _special(self, file_type: int, inode: Record) -> Content:
        match file_type:
            case stat.S_IFLNK:
                if not 0 < inode.size <= MAX_SYMLINK_BYTES:
                    raise InvalidImage(inode.offset, f"a link target of {inode.size} bytes")
                target = self._stored(inode).data
                if b"\0" in target:
                    raise InvalidImage(inode.offset, "a link target with a NUL byte")
                return Symlink(target)
            case stat.S_IFCHR:
                return CharDevice(inode.u)
            case stat.S_IFBLK:
                return BlockDevice(inode.u)
            case stat.S_IFIFO:
                return Fifo()
            case stat.S_IFSOCK:
                return Socket()
            case _:
                raise InvalidImage(inode.offset, f"unknown file type {inode.mode:o}")

    def restore_names(self, xattrs: dict[bytes, bytes], added: tuple[bytes, ...]) -> None:
        """Drop overlayfs's and composefs's own xattrs, unescape the user's."""
        if self._version is None:
            return
        for name in list(xattrs):
            if name in added:
                del xattrs[name]
            elif name.startswith(OVERLAY):
                # All are put back, to keep their order.
                kept = {
                    OVERLAY + n[len(OVERLAY_ESCAPED) :] if n.startswith(OVERLAY_ESCAPED) else n: v
                    for n, v in xattrs.items()
                    if n not in added
                    and (n.startswith(OVERLAY_ESCAPED) or not n.startswith(OVERLAY))
                }
                xattrs.clear()
                xattrs.update(kept)
                return


def _stat(inode: Record) -> Stat:
    return Stat(
        inode.mode & 0o7777, inode.uid, inode.gid, inode.mtime_s, inode.mtime_ns, inode.xattrs
    )


def _digest(inode: Record, metacopy: bytes) -> Digest:
    if len(metacopy) > _METACOPY_HEADER.size:
        version, length, flags, number = _METACOPY_HEADER.unpack_from(metacopy)
        raw = metacopy[_METACOPY_HEADER.size :]
        for algorithm in Algorithm:
            fits = number == algorithm.value and len(raw) == algorithm.digest_size
            if fits and (version, length, flags) == (0, len(metacopy), 0):
                return Digest(algorithm, raw)
    raise InvalidImage(inode.offset, "a file's metacopy xattr holds no fs-verity digest")
