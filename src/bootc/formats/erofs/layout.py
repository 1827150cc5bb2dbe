"""The layout of an image: rules that both epochs have in common.

The regions in order: header and superblock; inodes, each on a 32-byte slot with its
xattrs and the tail of its content behind it; the table of xattrs that several inodes
share; whole data blocks in the order of their inodes. This module and the epochs
(``epoch1``, ``epoch2``) decide every position; the writer only writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain

from bootc.formats.erofs.inodes import Inode, Unrepresentable
from bootc.formats.erofs.structs import (
    BLOCK_SIZE,
    DIRENT,
    FLAT_INLINE,
    FLAT_PLAIN,
    MAX_IMAGE_BYTES,
    MAX_XATTRS,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
    XATTR_HEADER,
    align,
)

FIRST_INODE = SUPERBLOCK_OFFSET + SUPERBLOCK.size
#: Content whose last partial block is larger than this gets a whole block instead of a tail.
MAX_TAIL_BYTES = BLOCK_SIZE // 2

_SHARED_ID_BYTES = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions of an image; the inodes, in the order of their positions, carry their own."""

    version: int
    inodes: list[Inode]
    #: Number of each shared xattr, in table order.
    shared: dict[bytes, int]
    #: How many of its shared xattrs an inode calls by number; it repeats the rest.
    max_shared: int
    #: Where the inodes end and the table begins.
    table: int
    data_start: int
    size: int
    has_acl: bool = False
    build_time_ns: int = 0
    xattr_block: int = 0


def shared_entries(inodes: Iterable[Inode]) -> list[bytes]:
    """Return the xattr entries that more than one inode has, in no order."""
    uses = Counter(chain.from_iterable(inode.xattrs for inode in inodes))
    return [entry for entry, count in uses.items() if count > 1]


def table_offsets(entries: Iterable[bytes]) -> dict[bytes, int]:
    """Return the offset of each entry in a table that holds them in this order."""
    offsets = {}
    offset = 0
    for entry in entries:
        offsets[entry] = offset
        offset += len(entry)
    return offsets


def measure_xattrs(
    inodes: Iterable[Inode], shared: dict[bytes, int], max_shared: int = MAX_XATTRS
) -> None:
    """Set how long the xattrs of each inode are."""
    for inode in inodes:
        if inode.xattrs:
            size = XATTR_HEADER.size
            ids = 0
            for entry in inode.xattrs:
                if entry in shared and ids < max_shared:
                    ids += 1
                    size += _SHARED_ID_BYTES
                else:
                    size += len(entry)
            inode.xattr_bytes = size


def pack_entries(inode: Inode) -> None:
    """Divide the entries of a directory into blocks, and perhaps a tail."""
    used = 0
    cuts = []
    for i, name in enumerate(inode.names):
        cost = DIRENT.size + len(name)
        if used + cost > BLOCK_SIZE:
            cuts.append(i)
            used = 0
        used += cost
    inode.cuts = cuts
    inode.blocks = len(cuts)
    if used > MAX_TAIL_BYTES:
        inode.blocks += 1
    else:
        inode.tail_bytes = used
    inode.size = inode.blocks * BLOCK_SIZE + inode.tail_bytes
    inode.layout = FLAT_INLINE if inode.tail_bytes else FLAT_PLAIN


def assign_blocks(inodes: Iterable[Inode], start: int) -> int:
    """Give each inode its blocks from ``start`` on; return the size of the image.

    Raises:
        Unrepresentable: it would exceed what readers accept.
    """
    block = start // BLOCK_SIZE
    for inode in inodes:
        if inode.blocks:
            inode.first_block = block
            block += inode.blocks
    if block * BLOCK_SIZE > MAX_IMAGE_BYTES:
        raise Unrepresentable(f"the image would have {block * BLOCK_SIZE} bytes, more than 1 GiB")
    return block * BLOCK_SIZE


def data_start(table: int, shared: Iterable[bytes]) -> int:
    """Return where the first data block stands behind the table of shared xattrs."""
    return align(table + sum(map(len, shared)), BLOCK_SIZE)
