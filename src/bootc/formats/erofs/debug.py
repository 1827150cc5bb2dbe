"""Describes the layout of an image for people.

The description has every region in the order of the offsets: headers, inodes with their
xattrs, tails, shared xattrs, blocks of directories and files, and gaps. It reports damage
with the offset and continues with the other regions. Its length grows with the size of
the image and not with the sizes that the image claims. Long values are cut.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bootc.formats.erofs.image import (
    Headers,
    Image,
    InvalidImage,
    Record,
    block_entries,
    check_headers,
    chunk_table_bytes,
    unpack_headers,
)
from bootc.formats.erofs.structs import (
    BLOCK_SIZE,
    CHUNK_BASED,
    COMPOSEFS_HAS_ACL,
    COMPOSEFS_HEADER,
    EXTENDED,
    FLAT_INLINE,
    FLAT_PLAIN,
    METACOPY,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
    XATTR_ENTRY,
    align,
)
from bootc.formats.tree import KINDS_BY_MODE, FileKind
from bootc.printable import shown

_LAYOUTS = {FLAT_PLAIN: "flat plain", FLAT_INLINE: "flat inline", CHUNK_BASED: "chunk based"}
_LABELS = {kind.dirent_type: kind.label for kind in FileKind}
#: Paths and values are cut to this many bytes.
_SHOWN_BYTES = 72
_INDENT = " " * 12


class _Region(NamedTuple):
    """A range of bytes and its description."""

    start: int
    end: int
    title: str
    #: Often a generator: only what is printed is made.
    details: Iterable[str] = ()


def describe_image(raw: bytes) -> Iterator[str]:
    """Yield lines that describe the layout of an image, damaged or not."""
    try:
        headers = unpack_headers(raw)
    except InvalidImage as exc:
        yield f"{exc.offset:#010x}  {_damage(exc).title}"
        return
    regions = list(_headers(headers))
    try:
        check_headers(headers, len(raw))
    except InvalidImage as exc:
        regions.append(_damage(exc))
    if headers.superblock.block_bits == 12:
        regions += _Walk(raw, headers).regions()
    regions.sort(key=lambda region: region[:2])
    position = 0
    for region in regions:
        if region.start > position:
            yield _unused(raw, position, region.start)
        elif region.start < min(position, region.end):
            yield f"{region.start:#010x}  overlap: this is part of what is above, too"
        yield f"{region.start:#010x}  {region.title}"
        for detail in region.details:
            yield _INDENT + detail
        position = max(position, region.end)
    if position < len(raw):
        yield _unused(raw, position, len(raw))
    yield f"{len(raw):#010x}  end"


def _unused(raw: bytes, start: int, end: int) -> str:
    # Counting copies nothing, however long the gap is.
    filled = end - start - raw.count(0, start, end)
    what = f"{filled} of {end - start} bytes are not zero" if filled else f"{end - start} zeros"
    return f"{start:#010x}  unused: {what}"


def _damage(exc: InvalidImage) -> _Region:
    return _Region(exc.offset, exc.offset, f"damage: {exc.why}")


def _headers(headers: Headers) -> Iterator[_Region]:
    if headers.version is not None:
        acl = ", has ACLs" if headers.flags & COMPOSEFS_HAS_ACL else ""
        title = f"composefs header: version {headers.version}, flags {headers.flags:#x}{acl}"
        yield _Region(0, COMPOSEFS_HEADER.size, title)
    fields = headers.superblock._asdict()
    details = [
        f"{name} {value.hex() if isinstance(value, bytes) else hex(value) if hexed else value}"
        for name, value in fields.items()
        for hexed in [name in ("magic", "checksum", "feature_compat", "feature_incompat")]
        if value not in (0, bytes(16), bytes(24))
    ]
    end = SUPERBLOCK_OFFSET + SUPERBLOCK.size
    yield _Region(SUPERBLOCK_OFFSET, end, "superblock", tuple(details))


class _Walk:
    """Finds the regions by walking from the root, breadth first, each inode once."""

    def __init__(self, raw: bytes, headers: Headers) -> None:
        self._raw = raw
        self._version = headers.version
        self._image = Image(raw, headers)
        self._root_nid = headers.superblock.root_nid
        self._regions: list[_Region] = []
        self._pending: deque[tuple[int, bytes]] = deque()
        self._seen: set[int] = set()

    def regions(self) -> list[_Region]:
        self._note(self._root_nid, b"/")
        while self._pending:
            nid, path = self._pending.popleft()
            try:
                self._inode(nid, path)
            except InvalidImage as exc:
                self._regions.append(_damage(exc))
        for number, (name, value) in self._image.shared_xattrs.items():
            start = self._image.shared_offset(number)
            name_bytes, _, value_bytes = XATTR_ENTRY.unpack_from(self._raw, start)
            end = align(start + XATTR_ENTRY.size + name_bytes + value_bytes, 4)
            title = f"shared xattr {number}: {_show(name)}={_show(value)}"
            self._regions.append(_Region(start, end, title))
        return self._regions

    def _note(self, nid: int, path: bytes) -> None:
        if nid not in self._seen:
            self._seen.add(nid)
            self._pending.append((nid, path))

    def _inode(self, nid: int, path: bytes) -> None:
        inode = self._image.inode(nid)
        kind = KINDS_BY_MODE.get(stat.S_IFMT(inode.mode))
        title = f"inode {nid} {_show(path)}: {kind.label if kind else 'unknown type'}"
        extended = bool(self._raw[inode.offset] & EXTENDED)
        details = _inode_details(inode, extended=extended)
        self._regions.append(_Region(inode.offset, inode.end, title, details))
        if kind is FileKind.DIRECTORY:
            self._directory(inode, path)
        elif inode.layout == CHUNK_BASED:
            self._chunks(inode, path)
        elif kind in (FileKind.REGULAR, FileKind.SYMLINK):
            for start, data in self._image.content(inode):
                title = f"content of {_show(path)}: {_show(data)}"
                self._regions.append(_Region(start, start + len(data), title))

    def _directory(self, inode: Record, path: bytes) -> None:
        for offset, piece in self._image.content(inode):
            for at in range(0, len(piece), BLOCK_SIZE):
                block = piece[at : at + BLOCK_SIZE]
                try:
                    self._entries(offset + at, block, path)
                except InvalidImage as exc:
                    self._regions.append(_damage(exc))

    def _entries(self, start: int, block: bytes, path: bytes) -> None:
        entries = block_entries(start, block)
        prefix = path if path.endswith(b"/") else path + b"/"
        for name, nid, _ in entries:
            if name not in (b".", b".."):
                self._note(nid, (prefix + name)[-_SHOWN_BYTES:])
        details = (
            f"{nid} {_LABELS.get(dirent_type, f'type {dirent_type}')} {_show(name)}"
            for name, nid, dirent_type in entries
        )
        title = f"{len(entries)} entries of {_show(path)}"
        self._regions.append(_Region(start, start + len(block), title, details))

    def _chunks(self, inode: Record, path: bytes) -> None:
        if self._version is not None:
            has_digest = bool(inode.xattrs.get(METACOPY))
            length = chunk_table_bytes(inode, self._version, has_digest=has_digest)
            start = inode.end
            if start % BLOCK_SIZE + length > BLOCK_SIZE:
                return  # The table is in a block that nothing points at: see epoch1.
        else:
            start, length = self._image.chunk_table(inode)
        if length:
            self._image.take(start, length, "chunk table")
            title = f"{length} bytes of chunk indexes of {_show(path)}"
            self._regions.append(_Region(start, start + length, title))


def _inode_details(inode: Record, *, extended: bool) -> Iterator[str]:
    yield (
        f"{'extended' if extended else 'compact'}, {_LAYOUTS[inode.layout]}, u {inode.u:#x}, "
        f"number {inode.number}"
    )
    yield (
        f"mode {inode.mode:o}, owner {inode.uid}:{inode.gid}, {inode.nlink} links, "
        f"{inode.size} bytes, mtime {inode.mtime_s}.{inode.mtime_ns:09}"
    )
    for i, (name, value) in enumerate(inode.xattrs.items()):
        shared = "shared xattr" if i < inode.shared_count else "xattr"
        yield f"{shared} {_show(name)}={_show(value)}"


def _show(raw: bytes) -> str:
    return shown(raw, _SHOWN_BYTES)
