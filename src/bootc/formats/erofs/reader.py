"""A composefs image (epoch 1) back to the tree it was made from.

Safe on any bytes: whatever is wrong becomes :class:`InvalidImage`, and as each byte of
an image may serve one purpose only, time and memory grow with its size and not with
what it claims. Images of other EROFS producers are refused, as are those whose names,
link counts or ``.`` and ``..`` do not fit together.

What the writer added is taken away again, so that writing the tree gives the same
image. Marks of whiteouts are taken only from where the writer puts them; elsewhere they
are the user's.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from bootc.errors import Error
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs.structs import (
    BLOCK_SIZE,
    CHUNK_BASED,
    COMPACT_INODE,
    COMPAT_CHECKSUM,
    COMPAT_MTIME,
    COMPAT_XATTR_FILTER,
    COMPOSEFS_HEADER,
    COMPOSEFS_HEADER_VERSION,
    COMPOSEFS_MAGIC,
    DIRENT,
    EROFS_MAGIC,
    EXTENDED,
    EXTENDED_INODE,
    FLAT_INLINE,
    FLAT_PLAIN,
    INCOMPAT_CHUNKED_FILE,
    MAX_DEPTH,
    MAX_IMAGE_BYTES,
    MAX_NAME_BYTES,
    MAX_SYMLINK_BYTES,
    METACOPY,
    NULL_CHUNK,
    OPAQUE_MARKS,
    OVERLAY,
    OVERLAY_ESCAPED,
    REDIRECT,
    SLOT_SIZE,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
    WHITEOUT_MARKS,
    WHITEOUTS_MARKS,
    XATTR_ENTRY,
    XATTR_HEADER,
    XATTR_PREFIXES,
    Superblock,
    align,
    chunk_count,
)
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Socket,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)

_STUB_NAME = re.compile(rb"[0-9a-f]{2}\Z")
_COMPAT = COMPAT_CHECKSUM | COMPAT_MTIME | COMPAT_XATTR_FILTER
#: Metacopy: version 0, length, flags 0, algorithm; then the digest.
_METACOPY_HEADER = struct.Struct("<BBBB")


class InvalidImage(Error):
    """The bytes are no composefs image of epoch 1, or a damaged one."""


def read_erofs(image: bytes) -> Directory:
    """Return the tree of an image.

    Raises:
        InvalidImage: with the offset of what is wrong.
    """
    source = _Source(image)
    superblock, version = _read_headers(source)
    return _TreeReader(source, superblock, version).read(superblock.root_nid)


def _fail(offset: int, why: str) -> NoReturn:
    raise InvalidImage(f"invalid composefs image: {why} (offset {offset:#x})")


class _Source:
    """The bytes, each of which may be taken once in sum."""

    def __init__(self, image: bytes) -> None:
        if len(image) > MAX_IMAGE_BYTES:
            _fail(0, f"{len(image)} bytes are more than 1 GiB")
        self._image = image
        self.size = len(image)
        self._left = len(image)

    def take(self, offset: int, length: int, what: str) -> bytes:
        if offset + length > self.size:
            _fail(offset, f"{what} reaches beyond the end")
        self._left -= length
        if self._left < 0:
            _fail(offset, f"{what} uses bytes that something else uses, too")
        return self._image[offset : offset + length]


def _read_headers(source: _Source) -> tuple[Superblock, int]:
    raw = source.take(0, COMPOSEFS_HEADER.size, "composefs header")
    magic, header_version, _, version = COMPOSEFS_HEADER.unpack(raw)
    if magic != COMPOSEFS_MAGIC or header_version != COMPOSEFS_HEADER_VERSION:
        _fail(0, "not a composefs header")
    if version not in (0, 1):
        _fail(12, f"composefs version {version} is not supported")
    raw = source.take(SUPERBLOCK_OFFSET, SUPERBLOCK.size, "superblock")
    superblock = Superblock._make(SUPERBLOCK.unpack(raw))
    plain = superblock._replace(checksum=0, uuid=bytes(16), volume_name=bytes(16))
    if plain.magic != EROFS_MAGIC:
        _fail(SUPERBLOCK_OFFSET, "not an EROFS superblock")
    expected = Superblock(
        feature_compat=plain.feature_compat & _COMPAT,
        feature_incompat=plain.feature_incompat & INCOMPAT_CHUNKED_FILE,
        root_nid=plain.root_nid,
        inodes=plain.inodes,
        build_time=plain.build_time,
        build_time_ns=plain.build_time_ns,
        blocks=plain.blocks,
        xattr_block=plain.xattr_block,
    )
    if plain != expected:
        _fail(SUPERBLOCK_OFFSET, "the superblock has features composefs does not use")
    if plain.blocks * BLOCK_SIZE != source.size:
        _fail(SUPERBLOCK_OFFSET, f"{plain.blocks} blocks announced, {source.size} bytes found")
    return superblock, version


class _Inode(NamedTuple):
    """An inode as stored."""

    offset: int
    layout: int
    mode: int
    nlink: int
    size: int
    u: int
    stat: Stat
    #: Where the tail begins.
    end: int


class _InodeReader:
    """Reads single inodes, their xattrs and what is stored of their content."""

    def __init__(self, source: _Source, superblock: Superblock) -> None:
        self._source = source
        self._build_time = superblock.build_time, superblock.build_time_ns
        self._shared_base = superblock.xattr_block * BLOCK_SIZE
        self._shared: dict[int, tuple[bytes, bytes]] = {}

    def inode(self, nid: int) -> _Inode:
        offset = nid * SLOT_SIZE
        raw = self._source.take(offset, COMPACT_INODE.size, "inode")
        layout = raw[0]
        if raw[1] or layout >> 1 not in (FLAT_PLAIN, FLAT_INLINE, CHUNK_BASED):
            _fail(offset, "inode of unknown format")
        if layout & EXTENDED:
            rest = EXTENDED_INODE.size - len(raw)
            raw += self._source.take(offset + len(raw), rest, "inode")
            fields = EXTENDED_INODE.unpack(raw)
            _, icount, mode, size, u, _, uid, gid, seconds, nanoseconds, nlink = fields
        else:
            _, icount, mode, nlink, size, u, _, uid, gid = COMPACT_INODE.unpack(raw)
            seconds, nanoseconds = self._build_time
        if nanoseconds >= 10**9:
            _fail(offset, "inode with an impossible mtime")
        end = offset + len(raw)
        xattrs: dict[bytes, bytes] = {}
        if icount:
            length = XATTR_HEADER.size + (icount - 1) * 4
            xattrs = self._xattrs(end, self._source.take(end, length, "xattrs"))
            end += length
        if seconds >= 1 << 63:
            seconds -= 1 << 64
        meta = Stat(mode & 0o7777, uid, gid, seconds, nanoseconds, xattrs)
        return _Inode(offset, layout >> 1, mode, nlink, size, u, meta, end)

    def _xattrs(self, offset: int, area: bytes) -> dict[bytes, bytes]:
        _, shared_count = XATTR_HEADER.unpack_from(area)
        local = XATTR_HEADER.size + 4 * shared_count
        if local > len(area):
            _fail(offset, "shared xattrs reach beyond their inode's xattrs")
        pairs = [
            self._shared_xattr(int.from_bytes(area[at : at + 4], "little"))
            for at in range(XATTR_HEADER.size, local, 4)
        ]
        while local < len(area):
            header = area[local : local + XATTR_ENTRY.size]
            name_bytes, _, value_bytes = XATTR_ENTRY.unpack(header)
            end = local + XATTR_ENTRY.size + name_bytes + value_bytes
            if end > len(area):
                _fail(offset + local, "an xattr reaches beyond its inode's xattrs")
            pairs.append(_pair(offset + local, header, area[local + XATTR_ENTRY.size : end]))
            local = align(end, 4)
        xattrs = dict(pairs)
        if len(xattrs) != len(pairs):
            _fail(offset, "an xattr appears twice")
        return xattrs

    def _shared_xattr(self, number: int) -> tuple[bytes, bytes]:
        pair = self._shared.get(number)
        if pair is None:
            offset = self._shared_base + 4 * number
            header = self._source.take(offset, XATTR_ENTRY.size, "shared xattr")
            name_bytes, _, value_bytes = XATTR_ENTRY.unpack(header)
            raw = self._source.take(
                offset + XATTR_ENTRY.size, name_bytes + value_bytes, "shared xattr"
            )
            pair = self._shared[number] = _pair(offset, header, raw)
        return pair

    def data(self, inode: _Inode) -> list[bytes]:
        """Return the stored content: runs of blocks as one piece, then the tail."""
        if inode.layout == CHUNK_BASED:
            _fail(inode.offset, "chunks where content is expected")
        tail = inode.size % BLOCK_SIZE if inode.layout == FLAT_INLINE else 0
        pieces = []
        if inode.size > tail:
            pieces.append(self._source.take(inode.u * BLOCK_SIZE, inode.size - tail, "data"))
        if tail:
            pieces.append(self._source.take(inode.end, tail, "data"))
        return pieces

    def check_holes(self, inode: _Inode) -> None:
        """See that a file without stored content has none: all its chunks are holes."""
        length = 4 * chunk_count(inode.size)
        if inode.end % BLOCK_SIZE + length > BLOCK_SIZE:
            return  # The table went to a block that is not linked: see layout.
        table = self._source.take(inode.end, length, "chunk table")
        if table != NULL_CHUNK * (length // 4):
            _fail(inode.end, "a file has chunks of data")


def _pair(offset: int, header: bytes, raw: bytes) -> tuple[bytes, bytes]:
    name_bytes, index, _ = XATTR_ENTRY.unpack(header)
    prefix = XATTR_PREFIXES.get(index, b"")
    name = prefix + raw[:name_bytes]
    if (index and not prefix) or not 0 < len(name) <= MAX_NAME_BYTES or b"\0" in name:
        _fail(offset, "an xattr has an impossible name")
    return name, raw[name_bytes:]


def _entries(inode: _Inode, pieces: list[bytes]) -> Iterator[tuple[bytes, int]]:
    """Yield (name, nid) of a directory in stored order, which must be bytewise."""
    last = b""
    for piece in pieces:
        for start in range(0, len(piece), BLOCK_SIZE):
            for name, nid in _block_entries(inode, piece[start : start + BLOCK_SIZE]):
                if name <= last:
                    _fail(inode.offset, f"directory entry {name!r} is out of order")
                last = name
                yield name, nid


def _block_entries(inode: _Inode, block: bytes) -> Iterator[tuple[bytes, int]]:
    names = int.from_bytes(block[8:10], "little")
    if not 0 < names <= len(block) or names % DIRENT.size:
        _fail(inode.offset, "a directory block does not begin with an entry")
    records = list(DIRENT.iter_unpack(block[:names]))
    ends = [record[1] for record in records[1:]]
    ends.append(len(block))
    for (nid, start, _), end in zip(records, ends, strict=True):
        name = block[start:end]
        if end == len(block):
            name = name.partition(b"\0")[0]
        if start < names or not 0 < len(name) <= MAX_NAME_BYTES or b"/" in name or b"\0" in name:
            _fail(inode.offset, "a directory entry has an impossible name")
        yield name, nid


@dataclass(slots=True)
class _Frame:
    """A directory being read."""

    nid: int
    inode: _Inode
    entries: Iterator[tuple[bytes, int]]
    directory: Directory
    dots: int = 0
    subdirectories: int = 0
    has_whiteouts: bool = False


class _TreeReader:
    """Walks from the root; an inode is read once, whatever points at it."""

    def __init__(self, source: _Source, superblock: Superblock, version: int) -> None:
        self._inodes = _InodeReader(source, superblock)
        self._version = version
        self._directories: set[int] = set()
        self._leaves: dict[int, tuple[_Inode, Leaf]] = {}
        self._links: dict[int, int] = {}
        self._stack: list[_Frame] = []

    def read(self, root_nid: int) -> Directory:
        inode = self._inodes.inode(root_nid)
        if not stat.S_ISDIR(inode.mode):
            _fail(inode.offset, "the root is no directory")
        root = self._enter(root_nid, inode)
        while self._stack:
            frame = self._stack[-1]
            for name, nid in frame.entries:
                if name in (b".", b".."):
                    self._check_dots(name, nid)
                elif self._add(frame, name, nid):
                    break
            else:
                self._leave(self._stack.pop())
        for nid, (inode, _) in self._leaves.items():
            if inode.nlink != self._links[nid]:
                _fail(inode.offset, f"{inode.nlink} links announced, {self._links[nid]} found")
        return root

    def _enter(self, nid: int, inode: _Inode) -> Directory:
        if nid in self._directories:
            _fail(inode.offset, "a directory appears twice")
        if len(self._stack) + 1 >= MAX_DEPTH:
            _fail(inode.offset, f"directories nested deeper than {MAX_DEPTH}")
        self._directories.add(nid)
        directory = Directory(inode.stat)
        entries = _entries(inode, self._inodes.data(inode))
        self._stack.append(_Frame(nid, inode, entries, directory))
        return directory

    def _check_dots(self, name: bytes, nid: int) -> None:
        frame = self._stack[-1]
        expected = frame if name == b"." else self._stack[-2:][0]
        if nid != expected.nid:
            _fail(frame.inode.offset, f"{name.decode()} leads elsewhere")
        frame.dots += 1

    def _add(self, frame: _Frame, name: bytes, nid: int) -> bool:
        """Put an entry into its directory; True if it is one itself, now on the stack."""
        known = self._leaves.get(nid)
        if known is None:
            if nid in self._directories:
                _fail(nid * SLOT_SIZE, "a directory appears twice")
            inode = self._inodes.inode(nid)
            if stat.S_ISDIR(inode.mode):
                frame.subdirectories += 1
                frame.directory.entries[name] = self._enter(nid, inode)
                return True
            known = self._leaves[nid] = inode, self._leaf(inode)
        self._links[nid] = self._links.get(nid, 0) + 1
        inode, leaf = known
        if leaf.content == CharDevice(0):
            if stat.S_ISCHR(inode.mode):
                if frame.nid != self._stack[0].nid or not _STUB_NAME.match(name):
                    _fail(inode.offset, "a device 0:0 that is no stub of the root")
                return False
            frame.has_whiteouts = True
            if inode.nlink > 1:
                _fail(inode.offset, "a hard-linked whiteout")
        frame.directory.entries[name] = leaf
        return False

    def _leave(self, frame: _Frame) -> None:
        inode = frame.inode
        if frame.dots != 2:
            _fail(inode.offset, "a directory without . or ..")
        if inode.nlink != 2 + frame.subdirectories:
            found = 2 + frame.subdirectories
            _fail(inode.offset, f"{inode.nlink} links announced, {found} found")
        added: tuple[bytes, ...] = ()
        if frame.has_whiteouts:
            added = WHITEOUTS_MARKS
            if self._version >= 1:
                added += OPAQUE_MARKS
        _restore_names(inode.stat, added)

    def _leaf(self, inode: _Inode) -> Leaf:
        xattrs = inode.stat.xattrs
        added: tuple[bytes, ...] = ()
        if stat.S_ISREG(inode.mode):
            if WHITEOUT_MARKS[0] in xattrs and inode.size == 0 and inode.layout == FLAT_PLAIN:
                content: Content = CharDevice(0)
                added = WHITEOUT_MARKS
            else:
                content = self._file(inode)
        else:
            content = self._special(inode)
        _restore_names(inode.stat, added)
        return Leaf(inode.stat, content)

    def _file(self, inode: _Inode) -> Inline | External | Unverified | Sparse:
        metacopy = inode.stat.xattrs.get(METACOPY)
        redirect = inode.stat.xattrs.get(REDIRECT)
        if inode.layout != CHUNK_BASED:
            if metacopy is not None or redirect is not None:
                _fail(inode.offset, "a file has content both here and elsewhere")
            return Inline(b"".join(self._inodes.data(inode)))
        self._inodes.check_holes(inode)
        if metacopy:
            return External(_digest(inode, metacopy), inode.size)
        if redirect is None:
            return Sparse(inode.size)
        if not redirect.startswith(b"/"):
            _fail(inode.offset, "the path of a file's content is not absolute")
        return Unverified(redirect[1:], inode.size)

    def _special(self, inode: _Inode) -> Content:
        match stat.S_IFMT(inode.mode):
            case stat.S_IFLNK:
                if not 0 < inode.size <= MAX_SYMLINK_BYTES:
                    _fail(inode.offset, f"a link target of {inode.size} bytes")
                target = b"".join(self._inodes.data(inode))
                if b"\0" in target:
                    _fail(inode.offset, "a link target with a NUL byte")
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
                _fail(inode.offset, f"unknown file type {inode.mode:o}")


def _digest(inode: _Inode, metacopy: bytes) -> Digest:
    if len(metacopy) > _METACOPY_HEADER.size:
        version, length, flags, number = _METACOPY_HEADER.unpack_from(metacopy)
        raw = metacopy[_METACOPY_HEADER.size :]
        for algorithm in Algorithm:
            fits = number == algorithm.value and len(raw) == algorithm.digest_size
            if fits and (version, length, flags) == (0, len(metacopy), 0):
                return Digest(algorithm, raw)
    _fail(inode.offset, "a file's metacopy xattr holds no fs-verity digest")


def _restore_names(meta: Stat, added: tuple[bytes, ...]) -> None:
    """Drop overlayfs's and composefs's own xattrs, unescape the user's."""
    if meta.xattrs:
        meta.xattrs = {
            OVERLAY + name[len(OVERLAY_ESCAPED) :] if name.startswith(OVERLAY_ESCAPED) else name: v
            for name, v in meta.xattrs.items()
            if name not in added
            and (name.startswith(OVERLAY_ESCAPED) or not name.startswith(OVERLAY))
        }
