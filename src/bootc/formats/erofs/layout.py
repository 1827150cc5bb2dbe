"""Where everything of an epoch 1 image stands.

Regions in order: header and superblock; inodes, each on a 32-byte slot with its
xattrs and the tail of its content behind it; the table of xattrs that several inodes
share; whole data blocks in the order of their inodes. Every size is decided here, so
the writer only fills in.

Source: behaviour of libcomposefs 1.0.8, which composefs-rs reproduces. The placement
rules are frozen: a byte elsewhere is another image digest.
"""

from __future__ import annotations

import stat
from collections import Counter
from dataclasses import dataclass
from itertools import chain

from bootc.formats.erofs.inodes import Inode, Unrepresentable, Xattrs
from bootc.formats.erofs.structs import (
    BLOCK_SIZE,
    COMPACT_INODE,
    DIRENT,
    EXTENDED_INODE,
    MAX_IMAGE_BYTES,
    SLOT_SIZE,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
    XATTR_ENTRY,
    XATTR_HEADER,
    XATTR_PREFIXES,
    align,
)

#: Content whose last partial block is larger than this gets a whole block instead of a tail.
_MAX_TAIL_BYTES = BLOCK_SIZE // 2
_FIRST_INODE = SUPERBLOCK_OFFSET + SUPERBLOCK.size
_SHARED_ID_BYTES = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions of an image; the inodes carry their own."""

    inodes: list[Inode]
    #: Offset of each shared xattr in its table, in table order.
    shared: dict[tuple[bytes, bytes], int]
    inodes_end: int
    data_start: int
    size: int
    #: The earliest mtime: what compact inodes have.
    build_time_ns: int


def lay_out(inodes: list[Inode]) -> Layout:
    """Decide all sizes and positions.

    Raises:
        Unrepresentable: the image would exceed what readers accept.
    """
    build_time_ns = min(inode.mtime_ns for inode in inodes)
    shared, shared_bytes = _shared_table(inodes)
    _measure_xattrs(inodes, shared)
    position = _FIRST_INODE
    for inode in inodes:
        _split_content(inode)
        inode.compact = (
            inode.mtime_ns == build_time_ns
            and inode.nlink <= 0xFFFF
            and inode.uid <= 0xFFFF
            and inode.gid <= 0xFFFF
            and inode.size <= 0xFFFFFFFF
        )
        position = _place(inode, position)
    inodes_end = align(position, SLOT_SIZE)
    data_start = align(inodes_end + shared_bytes, BLOCK_SIZE)
    block = data_start // BLOCK_SIZE
    for inode in inodes:
        if inode.blocks:
            inode.first_block = block
            block += inode.blocks
    if block * BLOCK_SIZE > MAX_IMAGE_BYTES:
        raise Unrepresentable(f"the image would have {block * BLOCK_SIZE} bytes, more than 1 GiB")
    return Layout(inodes, shared, inodes_end, data_start, block * BLOCK_SIZE, build_time_ns)


def split_xattr_name(name: bytes) -> tuple[int, bytes]:
    """Return the name index an xattr is stored under, and what is left of its name."""
    for index, prefix in _WRITTEN_PREFIXES:
        if name.startswith(prefix):
            return index, name[len(prefix) :]
    return 0, name


#: Epoch 1 knows index 5, ``lustre.``, only when reading.
_WRITTEN_PREFIXES = [(index, prefix) for index, prefix in XATTR_PREFIXES.items() if index != 5]


def _shared_table(inodes: list[Inode]) -> tuple[dict[tuple[bytes, bytes], int], int]:
    uses = Counter(chain.from_iterable(inode.xattrs for inode in inodes))
    pairs = [pair for pair, count in uses.items() if count > 1]
    pairs.sort(key=lambda pair: (pair[0], len(pair[1]), pair[1]), reverse=True)
    offsets = {}
    offset = 0
    for pair in pairs:
        offsets[pair] = offset
        offset += _entry_bytes(*pair)
    return offsets, offset


def _measure_xattrs(inodes: list[Inode], shared: dict[tuple[bytes, bytes], int]) -> None:
    known: dict[Xattrs, int] = {(): 0}
    for inode in inodes:
        size = known.get(inode.xattrs)
        if size is None:
            size = XATTR_HEADER.size + sum(
                _SHARED_ID_BYTES if pair in shared else _entry_bytes(*pair) for pair in inode.xattrs
            )
            known[inode.xattrs] = size
        inode.xattr_bytes = size


def _entry_bytes(name: bytes, value: bytes) -> int:
    return align(XATTR_ENTRY.size + len(split_xattr_name(name)[1]) + len(value), 4)


def _split_content(inode: Inode) -> None:
    """Decide what goes to whole blocks and what stays behind the inode."""
    if inode.entries:
        _split_entries(inode)
        return
    length = len(inode.data)
    if stat.S_ISLNK(inode.mode) or inode.chunked:
        inode.tail_bytes = length
        return
    inode.blocks, inode.tail_bytes = divmod(length, BLOCK_SIZE)
    if inode.tail_bytes > _MAX_TAIL_BYTES:
        inode.blocks += 1
        inode.tail_bytes = 0


def _split_entries(inode: Inode) -> None:
    used = 0
    cuts = []
    for i, (name, _) in enumerate(inode.entries):
        cost = DIRENT.size + len(name)
        if used + cost > BLOCK_SIZE:
            cuts.append(i)
            used = 0
        used += cost
    inode.cuts = cuts
    inode.blocks = len(cuts)
    if used > _MAX_TAIL_BYTES:
        inode.blocks += 1
    else:
        inode.tail_bytes = used
    inode.size = inode.blocks * BLOCK_SIZE + inode.tail_bytes


def _place(inode: Inode, position: int) -> int:
    """Choose the inode's position at or after ``position``; return where it ends."""
    position = align(position, SLOT_SIZE)
    record = COMPACT_INODE.size if inode.compact else EXTENDED_INODE.size
    head = record + inode.xattr_bytes
    if stat.S_ISLNK(inode.mode):
        last = position + head + inode.tail_bytes - 1
        if head + inode.tail_bytes >= BLOCK_SIZE:
            inode.blocks = 1
            inode.tail_bytes = 0
        if position // BLOCK_SIZE != last // BLOCK_SIZE:
            position = align(position, BLOCK_SIZE)
    else:
        room = _room(position + head)
        if room < inode.tail_bytes:
            pad = align(room, SLOT_SIZE)
            if inode.tail_bytes <= _room(position + head + pad):
                position += pad
            else:
                # Only a chunk table is this long. Kernels cannot find it in its block, but
                # such files are hundreds of terabytes large.
                inode.blocks += 1
                inode.tail_bytes = 0
                position = align(position, BLOCK_SIZE)
    inode.position = position
    return position + head + inode.tail_bytes


def _room(offset: int) -> int:
    return BLOCK_SIZE - offset % BLOCK_SIZE
