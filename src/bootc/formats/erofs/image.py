"""The records of an EROFS image, read safely.

Damage raises :class:`InvalidImage` with an offset. Each byte of an image may serve one
purpose only. Time and memory therefore grow with the size of the image and not with the
sizes that it claims.

Besides composefs's versions 0 to 2 this reads images that ``mkfs.erofs`` makes without
compression. They have no composefs header. Their files may repeat blocks or have holes,
up to :data:`PLAIN_FACTOR` times the size of the image in sum.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import NamedTuple

from bootc.errors import Error
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
    MAX_IMAGE_BYTES,
    MAX_NAME_BYTES,
    NULL_CHUNK,
    SLOT_SIZE,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
    XATTR_ENTRY,
    XATTR_HEADER,
    XATTR_PREFIXES,
    Superblock,
    align,
    chunk_count,
)

#: How much more content than bytes an image without composefs header may have.
PLAIN_FACTOR = 16

_COMPOSEFS_COMPAT = COMPAT_CHECKSUM | COMPAT_MTIME | COMPAT_XATTR_FILTER
#: Incompatible features that this reader does not support, with their names in messages.
_BEYOND = {
    0x01: "compression",
    0x02: "compression with settings",
    0x08: "several devices or kinds of compression",
    0x10: "compressed tails",
    0x20: "fragments",
    0x40: "more xattr prefixes",
    0x80: "48-bit addresses",
    0x100: "metadata elsewhere",
}
#: Inode layouts of compressed files.
_COMPRESSED = (1, 3)
#: Chunk format: log2 of the size beyond that of a block, and a flag for longer indexes.
_CHUNK_BITS = 0x1F
_CHUNK_INDEXES = 0x20
_NAME = re.compile(rb"[^/\0]{1,%d}\Z" % MAX_NAME_BYTES)


class InvalidImage(Error):
    """The bytes are not an image that this module can read, or the image is damaged.

    Args:
        offset: The offset of the fault.
        why: The fault.
    """

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(f"invalid EROFS image: {why} (offset {offset:#x})")
        self.offset = offset
        self.why = why


#: Name, nid and file type.
Entry = tuple[bytes, int, int]


class Headers(NamedTuple):
    """The composefs header, if there is one, and the superblock."""

    #: Of composefs, or None without its header.
    version: int | None
    flags: int
    superblock: Superblock


class Record(NamedTuple):
    """An inode as stored."""

    offset: int
    layout: int
    mode: int
    nlink: int
    size: int
    #: First data block, device number, or format of the chunks.
    u: int
    number: int
    uid: int
    gid: int
    mtime_s: int
    mtime_ns: int
    #: In stored order: shared ones, then its own.
    xattrs: dict[bytes, bytes]
    shared_count: int
    #: Where the tail begins.
    end: int


def unpack_headers(raw: bytes) -> Headers:
    """Return the headers without checking their values.

    Raises:
        InvalidImage: the bytes are too few, too many, or no EROFS image at all.
    """
    if len(raw) > MAX_IMAGE_BYTES:
        raise InvalidImage(0, f"{len(raw)} bytes are more than 1 GiB")
    if len(raw) < SUPERBLOCK_OFFSET + SUPERBLOCK.size:
        raise InvalidImage(len(raw), "ends within its superblock")
    magic, header_version, flags, version = COMPOSEFS_HEADER.unpack_from(raw)
    superblock = Superblock._make(SUPERBLOCK.unpack_from(raw, SUPERBLOCK_OFFSET))
    if superblock.magic != EROFS_MAGIC:
        raise InvalidImage(SUPERBLOCK_OFFSET, "not an EROFS superblock")
    if not any(raw[: COMPOSEFS_HEADER.size]):
        return Headers(None, 0, superblock)
    if magic != COMPOSEFS_MAGIC:
        raise InvalidImage(0, "not a composefs header")
    if header_version != COMPOSEFS_HEADER_VERSION:
        raise InvalidImage(4, f"composefs header version {header_version}")
    return Headers(version, flags, superblock)


def check_headers(headers: Headers, size: int) -> None:
    """Refuse an image with a feature that this reader does not support.

    Raises:
        InvalidImage: it has one; the message names the first.
    """
    found = headers.superblock
    if headers.version not in (None, 0, 1, 2):
        raise InvalidImage(12, f"composefs version {headers.version}")
    if found.block_bits != 12:
        raise InvalidImage(SUPERBLOCK_OFFSET + 12, f"blocks of 2^{found.block_bits} bytes")
    beyond = found.feature_incompat & ~INCOMPAT_CHUNKED_FILE
    if beyond:
        what = ", ".join(name for bit, name in _BEYOND.items() if beyond & bit) or "unknown"
        why = f"incompatible features {beyond:#x} ({what})"
        raise InvalidImage(SUPERBLOCK_OFFSET + 80, why)
    unused = found.feature_compat & ~_COMPOSEFS_COMPAT
    if headers.version is not None and unused:
        why = f"features {unused:#x}, which composefs does not use"
        raise InvalidImage(SUPERBLOCK_OFFSET + 8, why)
    expected = Superblock()
    for name in _UNUSED_FIELDS:
        value = getattr(found, name)
        if value != getattr(expected, name):
            why = f"unknown use of the superblock: {name} is {value}"
            raise InvalidImage(SUPERBLOCK_OFFSET, why)
    if found.blocks * BLOCK_SIZE != size:
        why = f"{found.blocks} blocks announced, {size} bytes found"
        raise InvalidImage(SUPERBLOCK_OFFSET + 36, why)


_UNUSED_FIELDS = (
    "extra_slots",
    "meta_block",
    "compression",
    "extra_devices",
    "directory_block_bits",
    "xattr_prefixes",
    "packed_nid",
)


class Image:
    """Reads single inodes, their xattrs and their stored content.

    Args:
        raw: The whole image.
        headers: Its headers, checked or not.
    """

    def __init__(self, raw: bytes, headers: Headers) -> None:
        self.headers = headers
        self._raw = raw
        self._left = len(raw) * (PLAIN_FACTOR if headers.version is None else 1)
        superblock = headers.superblock
        self._build_time = _signed(superblock.build_time), superblock.build_time_ns
        self._shared_base = superblock.xattr_block * BLOCK_SIZE
        #: Those that inodes have used so far, by number.
        self.shared_xattrs: dict[int, tuple[bytes, bytes]] = {}
        #: Names by how they are stored: index, length of the value, suffix.
        self._names: dict[bytes, bytes] = {}

    def take(self, offset: int, length: int, what: str) -> bytes:
        """Return some bytes. Each byte of the image can be taken only once."""
        if offset + length > len(self._raw):
            raise InvalidImage(offset, f"{what} reaches beyond the end")
        self._charge(offset, length, what)
        return self._raw[offset : offset + length]

    def _charge(self, offset: int, length: int, what: str) -> None:
        self._left -= length
        if self._left < 0:
            raise InvalidImage(offset, f"{what} uses bytes that something else uses, too")

    def inode(self, nid: int) -> Record:
        """Read an inode and its xattrs."""
        raw = self._raw
        offset = nid * SLOT_SIZE
        end = offset + COMPACT_INODE.size
        if end > len(raw):
            raise InvalidImage(offset, "inode reaches beyond the end")
        layout = raw[offset] >> 1
        if raw[offset + 1] or layout not in (FLAT_PLAIN, FLAT_INLINE, CHUNK_BASED):
            raise InvalidImage(
                offset, "compressed data" if layout in _COMPRESSED else "inode of unknown format"
            )
        if raw[offset] & EXTENDED:
            end = offset + EXTENDED_INODE.size
            if end > len(raw):
                raise InvalidImage(offset, "inode reaches beyond the end")
            (_, icount, mode, size, u, number, uid, gid, seconds, nanoseconds, nlink) = (
                EXTENDED_INODE.unpack_from(raw, offset)
            )
            if seconds >= 1 << 63:
                seconds = _signed(seconds)
        else:
            _, icount, mode, nlink, size, u, number, uid, gid = COMPACT_INODE.unpack_from(
                raw, offset
            )
            seconds, nanoseconds = self._build_time
        if nanoseconds >= 10**9:
            raise InvalidImage(offset, "inode with an impossible mtime")
        xattrs: dict[bytes, bytes] = {}
        shared = 0
        if icount:
            area = end
            end += XATTR_HEADER.size + (icount - 1) * 4
            if end > len(raw):
                raise InvalidImage(area, "xattrs reach beyond the end")
            shared = self._xattrs(area, end, xattrs)
        self._charge(offset, end - offset, "inode")
        return Record(
            offset,
            layout,
            mode,
            nlink,
            size,
            u,
            number,
            uid,
            gid,
            seconds,
            nanoseconds,
            xattrs,
            shared,
            end,
        )

    def _xattrs(self, offset: int, end: int, xattrs: dict[bytes, bytes]) -> int:
        """Fill in the xattrs between two offsets; return how many of them are shared."""
        raw = self._raw
        shared = raw[offset + 4]
        at = offset + XATTR_HEADER.size
        if at + 4 * shared > end:
            raise InvalidImage(offset, "shared xattrs reach beyond their inode's xattrs")
        for _ in range(shared):
            number = int.from_bytes(raw[at : at + 4], "little")
            name, value = self.shared_xattrs.get(number) or self.shared_xattr(number)
            xattrs[name] = value
            at += 4
        count = shared
        names = self._names
        unpack = XATTR_ENTRY.unpack_from
        while at < end:
            name_bytes, _, value_bytes = unpack(raw, at)
            value_at = at + 4 + name_bytes
            next_at = value_at + value_bytes
            if next_at > end:
                raise InvalidImage(at, "an xattr reaches beyond its inode's xattrs")
            name = names.get(raw[at + 1 : value_at]) or self._name(at, value_at)
            xattrs[name] = raw[value_at:next_at]
            count += 1
            at = next_at + 3 & -4
        if len(xattrs) != count:
            raise InvalidImage(offset, "an xattr appears twice")
        return shared

    def shared_offset(self, number: int) -> int:
        """Return where a shared xattr stands."""
        return self._shared_base + 4 * number

    def shared_xattr(self, number: int) -> tuple[bytes, bytes]:
        """Read an xattr of the shared table."""
        offset = self.shared_offset(number)
        header = self.take(offset, XATTR_ENTRY.size, "shared xattr")
        name_bytes, _, value_bytes = XATTR_ENTRY.unpack(header)
        value_at = offset + XATTR_ENTRY.size + name_bytes
        self.take(value_at - name_bytes, name_bytes + value_bytes, "shared xattr")
        pair = self._name(offset, value_at), self._raw[value_at : value_at + value_bytes]
        self.shared_xattrs[number] = pair
        return pair

    def _name(self, offset: int, value_at: int) -> bytes:
        index = self._raw[offset + 1]
        prefix = XATTR_PREFIXES.get(index, b"")
        name = prefix + self._raw[offset + XATTR_ENTRY.size : value_at]
        if (index and not prefix) or not 0 < len(name) <= MAX_NAME_BYTES or b"\0" in name:
            raise InvalidImage(offset, "an xattr has an impossible name")
        self._names[self._raw[offset + 1 : value_at]] = name
        return name

    def content(self, inode: Record) -> list[tuple[int, bytes]]:
        """Return the stored content with its offsets: blocks as one piece, then the tail."""
        if inode.layout == CHUNK_BASED:
            raise InvalidImage(inode.offset, "chunks where content is expected")
        tail = inode.size % BLOCK_SIZE if inode.layout == FLAT_INLINE else 0
        pieces = []
        if inode.size > tail:
            start = inode.u * BLOCK_SIZE
            pieces.append((start, self.take(start, inode.size - tail, "data")))
        if tail:
            pieces.append((inode.end, self.take(inode.end, tail, "data")))
        return pieces

    def entries(self, inode: Record) -> list[Entry]:
        """Return the entries of a directory in stored order."""
        entries: list[Entry] = []
        for offset, piece in self.content(inode):
            for start in range(0, len(piece), BLOCK_SIZE):
                entries += block_entries(offset + start, piece[start : start + BLOCK_SIZE])
        return entries

    def check_holes(self, inode: Record, length: int) -> None:
        """See that ``length`` bytes of chunk indexes behind an inode are holes, all of them."""
        if inode.end % BLOCK_SIZE + length > BLOCK_SIZE:
            return  # The table went to a block that is not linked: see epoch1.
        table = self.take(inode.end, length, "chunk table")
        if table != NULL_CHUNK * (length // 4):
            raise InvalidImage(inode.end, "a file has chunks of data")

    def chunk_table(self, inode: Record) -> tuple[int, int]:
        """Return offset and length of the chunk indexes in an image of ``mkfs.erofs``."""
        if inode.u & ~(_CHUNK_BITS | _CHUNK_INDEXES):
            raise InvalidImage(inode.offset, f"unknown chunk format {inode.u:#x}")
        width = 8 if inode.u & _CHUNK_INDEXES else 4
        chunk_bits = 12 + (inode.u & _CHUNK_BITS)
        return align(inode.end, width), width * (inode.size + (1 << chunk_bits) - 1 >> chunk_bits)

    def chunks(self, inode: Record) -> bytes | None:
        """Return the content of a file in chunks, or None if it is one hole."""
        start, length = self.chunk_table(inode)
        table = self.take(start, length, "chunk table")
        width = 8 if inode.u & _CHUNK_INDEXES else 4
        chunk_size = BLOCK_SIZE << (inode.u & _CHUNK_BITS)
        addresses = [table[at + width - 4 : at + width] for at in range(0, len(table), width)]
        if all(address == NULL_CHUNK for address in addresses):
            return None
        pieces = []
        left = inode.size
        for address in addresses:
            length = min(chunk_size, left)
            left -= length
            if address == NULL_CHUNK:
                self._charge(inode.offset, length, "hole")
                pieces.append(bytes(length))
            else:
                start = int.from_bytes(address, "little") * BLOCK_SIZE
                pieces.append(self.take(start, length, "chunk"))
        return b"".join(pieces)


def block_entries(offset: int, block: bytes) -> list[Entry]:
    """Return the entries in a block of a directory, or in its tail.

    Raises:
        InvalidImage: the entries are damaged.
    """
    end = int.from_bytes(block[8:10], "little")
    if not 0 < end <= len(block) or end % DIRENT.size:
        raise InvalidImage(offset, "a directory block does not begin with an entry")
    nids, starts, kinds = zip(*DIRENT.iter_unpack(block[:end]), strict=True)
    # A name ends where the next begins, so names in disorder are empty ones.
    names = [block[a:b] for a, b in pairwise(starts)]
    names.append(block[starts[-1] :].partition(b"\0")[0])
    if not all(map(_NAME.match, names)):
        raise InvalidImage(offset, "a directory entry has an impossible name")
    return list(zip(names, nids, kinds, strict=True))


def chunk_table_bytes(inode: Record, version: int, *, has_digest: bool) -> int:
    """Return how many bytes of chunk indexes composefs puts behind an inode."""
    if version == 2:
        return 4 if has_digest else 0
    return 4 * chunk_count(inode.size)


def _signed(seconds: int) -> int:
    return seconds - (1 << 64) if seconds >= 1 << 63 else seconds
