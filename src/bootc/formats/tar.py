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
long names, which win over the header. Global pax headers have no effect but keep
their bytes. Two zero blocks, or the end of the stream between entries, end the
archive. Unknown types are refused. A sparse file's body stays packed, as the archive
has it: this is a :attr:`EntryKind.SPARSE`, whose bytes are kept like any others.

Format: POSIX.1-2017 ``pax``, "ustar Interchange Format" and "pax Interchange
Format"; GNU tar manual, "Basic Tar Format" and "Storing Sparse Files".
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bootc.errors import Error
from bootc.printable import shown

BLOCK_BYTES = 512
_ZERO_BLOCK = bytes(BLOCK_BYTES)

#: Limits per entry: extension headers, their bytes in all, and a path.
MAX_EXTENSIONS = 16
MAX_EXTENSION_BYTES = 1 << 20
MAX_PATH_BYTES = 4096

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_MODE = slice(100, 108)
_CHECKSUM = slice(148, 156)
_CHECKSUM_BLANK_SUM = 8 * ord(" ")
_XATTR_PREFIX = b"SCHILY.xattr."
_SPARSE_PREFIX = b"GNU.sparse."
#: Old GNU sparse headers: whether a block with more of the map follows, in the header's
#: prefix field and in such a block.
_SPARSE_GOES_ON = 482 - 345
_SPARSE_GOES_ON_AGAIN = 504
_MAX_ID = (1 << 32) - 1
_MAX_TIME = _MAX_SIZE = (1 << 63) - 1


class TarError(Error):
    """Bytes are not a tar archive, or bootc refuses the archive."""

    def __init__(self, what: str, offset: int, *, entry: bytes | None = None) -> None:
        where = "" if entry is None else f"entry {shown(entry)}: "
        super().__init__(f"bad tar archive: {where}{what} at offset {offset}")
        self.offset = offset
        self._what = what
        self._entry = entry

    def inside(self, entry: bytes) -> TarError:
        """Return the same error with the path of the entry."""
        return TarError(self._what, self.offset, entry=entry)

    def follow(self, last: bytes | None) -> None:
        """Name the last good entry if the error does not name an entry."""
        if self._entry is None and last is not None:
            self.message += f", after entry {shown(last)}"
            self.args = (self.message,)


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

    @property
    def stored_mode(self) -> int:
        """The mode as the header has it: ``mode``, and perhaps bits that say nothing."""
        return _number(self.raw[-BLOCK_BYTES:][_MODE], "mode", self.offset, _MAX_SIZE)

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
        #: After the last entry: the bytes that ended the archive.
        self.trailer = b""

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
        extension_bytes = count = 0
        while True:
            offset = self._offset
            block = self._block()
            if not block or block == _ZERO_BLOCK:
                self._finish(block, offset, orphaned=bool(extensions.values))
                return None
            fields = _HEADER.unpack(block)
            _check_sum(block, fields[6], offset)
            typeflag: bytes = fields[7]
            if typeflag != b"g" and typeflag not in _EXTENSIONS:
                return self._entry(fields, extensions, start, offset)
            size = _number(fields[4], "size", offset, MAX_EXTENSION_BYTES)
            count += 1
            extension_bytes += size
            if count > MAX_EXTENSIONS or extension_bytes > MAX_EXTENSION_BYTES:
                raise TarError("too many extension headers", offset)
            data = self._extension_data(size)
            if typeflag == b"g":
                continue
            if typeflag in extensions.values:
                raise TarError(f"second {_EXTENSIONS[typeflag]} for one entry", offset)
            extensions.values[typeflag] = data.partition(b"\0")[0]
            if typeflag == b"x":
                extensions.pax = _parse_pax(data, offset + BLOCK_BYTES)

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

    def _take_sparse_map(self, offset: int) -> None:
        """Take the blocks between an old GNU sparse header and its body."""
        for _ in range(MAX_EXTENSION_BYTES // BLOCK_BYTES):
            block = self._block()
            if not block:
                raise TarError("truncated sparse map", self._offset)
            if not block[_SPARSE_GOES_ON_AGAIN]:
                return
        raise TarError("sparse map too long", offset)

    def _finish(self, block: bytes, offset: int, *, orphaned: bool) -> None:
        if orphaned:
            raise TarError("extension header without an entry", offset)
        if block and self._block() != _ZERO_BLOCK:
            raise TarError("a lone zero block", offset)
        self.trailer = b"".join(self._raw)

    def _entry(
        self, fields: tuple[bytes, ...], extensions: _Extensions, start: int, offset: int
    ) -> Entry:
        name, magic, prefix = fields[0], fields[9], fields[14]
        path = name.partition(b"\0")[0]
        if magic.startswith(b"ustar\0") and (above := prefix.partition(b"\0")[0]):
            path = above + b"/" + path
        path = _path(extensions.text(b"path", b"L", path), "path", offset)
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
        if kind is EntryKind.FILE and any(key.startswith(_SPARSE_PREFIX) for key in pax):
            kind = EntryKind.SPARSE
        elif kind is EntryKind.SPARSE and rest[2][_SPARSE_GOES_ON]:
            self._take_sparse_map(offset)
        if kind is None:
            raise TarError(f"unknown entry type {typeflag!r}", offset)
        link_target = b""
        if kind in _LINKS:
            link = extensions.text(b"linkpath", b"K", linkname.partition(b"\0")[0])
            link_target = _path(link, "link target", offset)
        size_bytes = _pax_or_field(pax, b"size", size, offset, _MAX_SIZE)
        if kind not in _HAVE_BODIES and size_bytes:
            raise TarError(f"{kind.value} with a body", offset)
        mtime_s, mtime_ns = _mtime(pax, mtime, offset)
        return Entry(
            path=path,
            kind=kind,
            mode=_number(mode, "mode", offset, _MAX_SIZE) & 0o7777,
            uid=_pax_or_field(pax, b"uid", uid, offset, _MAX_ID),
            gid=_pax_or_field(pax, b"gid", gid, offset, _MAX_ID),
            mtime_s=mtime_s,
            mtime_ns=mtime_ns,
            size_bytes=size_bytes,
            link_target=link_target,
            rdev=_rdev(rest[0], rest[1], offset) if kind in _DEVICES else 0,
            xattrs=_xattrs(pax, offset),
            offset=start,
            raw=b"".join(self._raw),
        )


def _check_sum(block: bytes, stored: bytes, offset: int) -> None:
    computed = sum(block) - sum(block[_CHECKSUM]) + _CHECKSUM_BLANK_SUM
    if _number(stored, "checksum", offset, _MAX_SIZE) != computed:
        raise TarError("wrong header checksum", offset)


def _number(raw: bytes, what: str, offset: int, limit: int) -> int:
    """Read a numeric field: octal text, or base-256 when the top bit is set."""
    if raw[0] & 0x80:
        if raw[0] & 0x40:
            raise TarError(f"negative {what}", offset)
        value = int.from_bytes(raw, "big") - (0x80 << 8 * (len(raw) - 1))
    else:
        text = raw.strip(b" \0").partition(b"\0")[0]
        try:
            value = int(text, 8) if text.isdigit() else _empty_is_zero(text)
        except ValueError:
            raise TarError(f"{what} is no number", offset) from None
    if value > limit:
        raise TarError(f"{what} out of range", offset)
    return value


def _empty_is_zero(text: bytes) -> int:
    if text:
        raise ValueError
    return 0


def _pax_or_field(pax: dict[bytes, bytes], key: bytes, raw: bytes, offset: int, limit: int) -> int:
    text = pax.get(key)
    if not text:
        return _number(raw, key.decode(), offset, limit)
    return _decimal(text, key.decode(), offset, limit)


def _decimal(text: bytes, what: str, offset: int, limit: int) -> int:
    # 20 digits hold every limit; longer text would make int() slow, not right.
    if not text.isdigit() or len(text) > 20 or (value := int(text)) > limit:
        raise TarError(f"pax {what} is no number in range", offset)
    return value


def _mtime(pax: dict[bytes, bytes], raw: bytes, offset: int) -> tuple[int, int]:
    """Return seconds and nanoseconds; only pax knows the latter."""
    text = pax.get(b"mtime")
    if not text:
        if raw[0] & 0xC0 == 0xC0:
            raise TarError("negative mtime, a time before 1970,", offset)
        return _number(raw, "mtime", offset, _MAX_TIME), 0
    whole, _, fraction = text.partition(b".")
    if whole[:1] == b"-" and whole[1:].isdigit():
        raise TarError("pax mtime is no number in range but a time before 1970,", offset)
    digits = fraction[:9]
    nanoseconds = int(digits.ljust(9, b"0")) if fraction.isdigit() else 0
    return _decimal(whole, "mtime", offset, _MAX_TIME), nanoseconds


def _rdev(major_field: bytes, minor_field: bytes, offset: int) -> int:
    """Encode a device number as ``st_rdev`` has it; the kernel keeps 12 and 20 bits."""
    major = _number(major_field, "device major", offset, 0xFFF)
    minor = _number(minor_field, "device minor", offset, 0xFFFFF)
    return (minor & 0xFF) | major << 8 | (minor & ~0xFF) << 12


def _path(value: bytes, what: str, offset: int) -> bytes:
    if not value:
        raise TarError(f"empty {what}", offset)
    if len(value) > MAX_PATH_BYTES:
        raise TarError(f"{what} of {len(value)} bytes", offset)
    if b"\0" in value:
        raise TarError(f"zero byte in {what}", offset)
    return value


def _xattrs(pax: dict[bytes, bytes], offset: int) -> dict[bytes, bytes]:
    skip = len(_XATTR_PREFIX)
    xattrs = {key[skip:]: value for key, value in pax.items() if key.startswith(_XATTR_PREFIX)}
    if any(not name or b"\0" in name for name in xattrs):
        raise TarError("bad name of an extended attribute", offset)
    return xattrs


def _parse_pax(data: bytes, offset: int) -> dict[bytes, bytes]:
    """Parse lines of ``LENGTH KEY=VALUE``; of two with one key the later wins."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 8)
        length = data[at:space] if space > at else b""
        end = at + int(length) if length.isdigit() else 0
        if not at < end <= len(data) or data[end - 1] != 0x0A:
            raise TarError("bad pax record length", offset + at)
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not key or not equals:
            raise TarError("bad pax record", offset + at)
        records[key] = value
        at = end
    return records
