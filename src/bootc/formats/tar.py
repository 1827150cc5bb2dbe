"""Reads tar headers into values and keeps every byte.

It reads ustar, pax and GNU headers as layers of container images use them. A
:class:`HeaderReader` yields one :class:`Entry` after another; ``Entry.raw`` holds
the header with its extension records as they were, so that headers, bodies and
padding put together give the archive back, and the digest of a layer still
matches. The caller reads the body (``size_bytes``) and then
``padding_bytes`` from the same stream before it asks for the next entry. Memory therefore
stays constant.

Bytes that are no tar archive raise :class:`TarError` with their offset and the
entry they belong to or follow.
A header needs a right checksum; numbers are octal or base-256; pax wins over GNU
long names, which win over the header. A time may be before 1970. Global pax headers
have no effect but keep their bytes. The end of the stream between entries ends the
archive, and so do two zero blocks, or one that is the last of all. Unknown types are
refused. The body of a sparse file (:attr:`EntryKind.SPARSE`) is packed;
:func:`bootc.formats.tarsparse.expanded` makes the content of it.

The size of a directory, link, device or pipe says nothing, as in Go: the next header follows.
If none follows, the bytes are a body; they are skipped, and belong to ``Entry.raw`` of the
next entry.

Format: POSIX.1-2017 ``pax``, "ustar Interchange Format" and "pax Interchange
Format"; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files".
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bootc.formats.tarsparse import PAX_PREFIX, SparseMap, goes_on, map_of_blocks, map_of_pax
from bootc.formats.tarvalues import (
    MAX_ID,
    MAX_SIZE,
    TarError,
    check_sum,
    is_header,
    mtime_of,
    number,
    parse_pax,
    path_of,
    pax_or_field,
    rdev_of,
    xattrs_of,
)

BLOCK_BYTES = 512
_ZERO_BLOCK = bytes(BLOCK_BYTES)

#: Limits per entry: the data of extension headers, the bytes of global headers before it, and
#: what follows a header that has no body.
MAX_EXTENSION_BYTES = 1 << 20

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_MODE = slice(100, 108)


class EntryKind(enum.Enum):
    """The type of an entry."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hard link"
    CHAR_DEVICE = "character device"
    BLOCK_DEVICE = "block device"
    FIFO = "fifo"
    SPARSE = "sparse file"


_KINDS = {
    b"0": EntryKind.FILE,
    b"\0": EntryKind.FILE,
    b"7": EntryKind.FILE,
    b"1": EntryKind.HARDLINK,
    b"2": EntryKind.SYMLINK,
    b"3": EntryKind.CHAR_DEVICE,
    b"4": EntryKind.BLOCK_DEVICE,
    b"5": EntryKind.DIRECTORY,
    b"6": EntryKind.FIFO,
    b"S": EntryKind.SPARSE,
}
_HAVE_BODIES = (EntryKind.FILE, EntryKind.SPARSE)
_LINKS = (EntryKind.SYMLINK, EntryKind.HARDLINK)
_DEVICES = (EntryKind.CHAR_DEVICE, EntryKind.BLOCK_DEVICE)
_EXTENSIONS = {b"x": "pax header", b"L": "GNU long name", b"K": "GNU long link"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of an archive. ``path`` and ``link_target`` are as the archive has them."""

    path: bytes
    kind: EntryKind
    mode: int
    uid: int
    gid: int
    mtime_s: int
    mtime_ns: int
    size_bytes: int
    link_target: bytes
    rdev: int
    xattrs: dict[bytes, bytes]
    offset: int
    raw: bytes
    #: Of a sparse file: how its content is made of the body.
    sparse: SparseMap | None = None

    @property
    def stored_mode(self) -> int:
        """The mode as the header has it: ``mode``, and perhaps bits that say nothing."""
        after = 0 if self.sparse is None else self.sparse.blocks * BLOCK_BYTES
        header = self.raw[len(self.raw) - after - BLOCK_BYTES :]
        return number(header[_MODE], "mode", self.offset, MAX_SIZE)

    @property
    def body_offset(self) -> int:
        """Offset of the body from the start of the archive."""
        return self.offset + len(self.raw)

    @property
    def padding_bytes(self) -> int:
        """Bytes between the body and the next header."""
        return -self.size_bytes % BLOCK_BYTES


@dataclass(slots=True)
class _Extensions:
    """The values of extension headers for the next entry."""

    values: dict[bytes, bytes] = field(default_factory=dict)
    pax: dict[bytes, bytes] = field(default_factory=dict)

    #: All values of the pax records about a sparse file.
    sparse: dict[bytes, list[bytes]] = field(default_factory=dict)
    _bytes: int = 0
    _global_bytes: int = 0

    def count(self, size: int, offset: int) -> None:
        """Count the data of an extension header."""
        self._bytes += size
        if self._bytes > MAX_EXTENSION_BYTES:
            raise TarError("too large extension headers", offset)

    def count_global(self, size: int, offset: int) -> None:
        """Count a global header with its data."""
        self._global_bytes += BLOCK_BYTES + size
        if self._global_bytes > MAX_EXTENSION_BYTES:
            raise TarError("too many global pax headers", offset)

    def text(self, pax_key: bytes, gnu_type: bytes, header: bytes) -> bytes:
        """Return the value that wins."""
        return self.pax.get(pax_key) or self.values.get(gnu_type) or header


class HeaderReader:
    """The headers of one archive, in order.

    Args:
        read: Returns exactly as many bytes as asked for, fewer only at the end.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._offset = 0
        self._raw: list[bytes] = []
        self._last: bytes | None = None
        #: The size that the last header stated although its entry has no body.
        self._stated = 0
        #: After the last entry: the bytes that ended the archive.
        self.trailer = b""

    @property
    def offset(self) -> int:
        """Where the next header begins; after the last entry, where the archive has ended."""
        return self._offset

    def __iter__(self) -> Iterator[Entry]:
        """Yield the entries; take each body and its padding before going on.

        Raises:
            TarError: at the first byte that is wrong.
        """
        while (entry := self._checked_next()) is not None:
            yield entry
            self._last = entry.path
            self._offset += entry.size_bytes + entry.padding_bytes

    def _checked_next(self) -> Entry | None:
        try:
            return self._next()
        except TarError as exc:
            exc.follow(self._last)
            raise

    def _next(self) -> Entry | None:
        self._raw = []
        start = self._offset
        extensions = _Extensions()
        while True:
            offset = self._offset
            block = self._block()
            if self._stated and block and block != _ZERO_BLOCK and not is_header(block):
                self._skip_stated(offset)
                continue
            self._stated = 0
            if not block or block == _ZERO_BLOCK:
                self._finish(block, offset, orphaned=bool(extensions.values))
                return None
            fields = _HEADER.unpack(block)
            check_sum(block, fields[6], offset)
            typeflag: bytes = fields[7]
            if typeflag != b"g" and typeflag not in _EXTENSIONS:
                return self._entry(fields, extensions, start, offset)
            size = number(fields[4], "size", offset, MAX_EXTENSION_BYTES)
            if typeflag == b"g":
                extensions.count_global(size, offset)
                self._extension_data(size)
                continue
            extensions.count(size, offset)
            data = self._extension_data(size)
            if typeflag in extensions.values:
                raise TarError(f"second {_EXTENSIONS[typeflag]} for one entry", offset)
            extensions.values[typeflag] = data.partition(b"\0")[0]
            if typeflag == b"x":
                lists = PAX_PREFIX, extensions.sparse
                extensions.pax = parse_pax(data, offset + BLOCK_BYTES, lists)

    def _skip_stated(self, offset: int) -> None:
        """Skip what no header can begin with: the body of an entry that should have none."""
        size, self._stated = self._stated, 0
        if size > MAX_EXTENSION_BYTES:
            raise TarError(f"a body of {size} bytes that belongs to no file", offset)
        rest = size + -size % BLOCK_BYTES - BLOCK_BYTES
        data = self._read(rest)
        if len(data) != rest:
            raise TarError("truncated body", self._offset + len(data))
        self._take(data)

    def _block(self) -> bytes:
        block = self._read(BLOCK_BYTES)
        if len(block) not in (0, BLOCK_BYTES):
            raise TarError("truncated header", self._offset + len(block))
        self._take(block)
        return block

    def _extension_data(self, size: int) -> bytes:
        padded = size + -size % BLOCK_BYTES
        data = self._read(padded)
        if len(data) != padded:
            raise TarError("truncated extension header", self._offset + len(data))
        self._take(data)
        return data[:size]

    def _take(self, data: bytes) -> None:
        self._raw.append(data)
        self._offset += len(data)

    def _sparse_map(
        self, typeflag: bytes, extensions: _Extensions, size_bytes: int, offset: int
    ) -> SparseMap | None:
        """Return the map of a sparse file; take the blocks between an old header and its body."""
        if typeflag != b"S":
            if not extensions.sparse or _KINDS[typeflag] is not EntryKind.FILE:
                return None
            return map_of_pax(extensions.pax, extensions.sparse, size_bytes, offset)
        header = block = self._raw[-1]
        more: list[bytes] = []
        while goes_on(block, header=block is header):
            if len(more) == MAX_EXTENSION_BYTES // BLOCK_BYTES:
                raise TarError("sparse map too long", offset)
            block = self._block()
            if not block:
                raise TarError("truncated sparse map", self._offset)
            more.append(block)
        return map_of_blocks(header, more, size_bytes, offset)

    def _finish(self, block: bytes, offset: int, *, orphaned: bool) -> None:
        if orphaned:
            raise TarError("extension header without an entry", offset)
        if block and self._block() not in (b"", _ZERO_BLOCK):
            # Go's reader refuses this; GNU tar and Python do not see what follows.
            raise TarError("a zero block with an entry after it", offset)
        self.trailer = b"".join(self._raw)

    def _entry(
        self, fields: tuple[bytes, ...], extensions: _Extensions, start: int, offset: int
    ) -> Entry:
        name, magic, prefix = fields[0], fields[9], fields[14]
        path = name.partition(b"\0")[0]
        if magic.startswith(b"ustar\0") and (above := prefix.partition(b"\0")[0]):
            path = above + b"/" + path
        # GNU tar gives a sparse file a made-up name in the other places.
        path = extensions.pax.get(PAX_PREFIX + b"name") or extensions.text(b"path", b"L", path)
        path = path_of(path, "path", offset)
        try:
            return self._named_entry(path, fields, extensions, start, offset)
        except TarError as exc:
            raise exc.inside(path) from None

    def _named_entry(
        self,
        path: bytes,
        fields: tuple[bytes, ...],
        extensions: _Extensions,
        start: int,
        offset: int,
    ) -> Entry:
        (_, mode, uid, gid, size, mtime, _, typeflag, linkname, _, _, _, *rest) = fields
        kind = _KINDS.get(typeflag)
        pax = extensions.pax
        if kind is None:
            raise TarError(f"unknown entry type {typeflag!r}", offset)
        link_target = b""
        if kind in _LINKS:
            link = extensions.text(b"linkpath", b"K", linkname.partition(b"\0")[0])
            link_target = path_of(link, "link target", offset)
        size_bytes = pax_or_field(pax, b"size", size, offset, MAX_SIZE)
        if kind not in _HAVE_BODIES:
            self._stated, size_bytes = size_bytes, 0
        mtime_s, mtime_ns = mtime_of(pax, mtime, offset)
        sparse = self._sparse_map(typeflag, extensions, size_bytes, offset)
        return Entry(
            path=path,
            kind=kind if sparse is None else EntryKind.SPARSE,
            mode=number(mode, "mode", offset, MAX_SIZE) & 0o7777,
            uid=pax_or_field(pax, b"uid", uid, offset, MAX_ID),
            gid=pax_or_field(pax, b"gid", gid, offset, MAX_ID),
            mtime_s=mtime_s,
            mtime_ns=mtime_ns,
            size_bytes=size_bytes,
            link_target=link_target,
            rdev=rdev_of(rest[0], rest[1], offset) if kind in _DEVICES else 0,
            xattrs=xattrs_of(pax, offset),
            offset=start,
            raw=b"".join(self._raw),
            sparse=sparse,
        )
