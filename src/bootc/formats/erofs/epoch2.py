"""Epoch 2 (version 2): the layout of composefs-rs before it adopted that of the C tools.

Old installations boot by digests of these images. Inodes are numbered depth first, always
use the larger record, and have no nanoseconds. Nothing is added to the tree, and a
whiteout of the user remains a device.

The placement rules are frozen with all their oddities: one byte in another place changes
the image digest.
"""

from __future__ import annotations

from bootc.formats.erofs.inodes import (
    Inode,
    LimitError,
    Pairs,
    check_stat,
    collect,
    fill_content,
    overlay_facts,
)
from bootc.formats.erofs.layout import (
    FIRST_INODE,
    Layout,
    assign_blocks,
    data_start,
    measure_xattrs,
    pack_entries,
    shared_entries,
    table_offsets,
)
from bootc.formats.erofs.structs import (
    BLOCK_SIZE,
    CHUNK_BASED,
    EXTENDED_INODE,
    FLAT_INLINE,
    FLAT_PLAIN,
    MAX_XATTRS,
    NULL_CHUNK,
    OVERLAY,
    OVERLAY_ESCAPED,
    SLOT_SIZE,
    XATTR_PREFIXES,
    align,
)
from bootc.formats.erofs.xattrs import XattrEncoder, split_entry
from bootc.formats.tree import Directory, External, FileKind, Inline, Leaf, Stat, kind_of

#: composefs-rs writes longer values but does not read them back.
MAX_INLINE_BYTES = 512
MAX_SYMLINK_BYTES = 1024

#: Whatever the size of the file: chunks of 8 TiB.
_CHUNK_FORMAT = 31


def lay_out(root: Directory) -> Layout:
    """Decide everything about the image of ``root``.

    Raises:
        Unrepresentable: the tree contains something that the format cannot store.
    """
    inodes = collect(root, _Epoch2())
    offsets = table_offsets(sorted(shared_entries(inodes), key=split_entry))
    measure_xattrs(inodes, offsets)
    position = FIRST_INODE
    for inode in inodes:
        if inode.kind is FileKind.DIRECTORY:
            pack_entries(inode)
        position = align(_place(inode, position), SLOT_SIZE)
        inode.number = inode.position // SLOT_SIZE
    start = data_start(position, offsets)
    size = assign_blocks(inodes, start)
    for inode in inodes:
        if inode.first_block:
            inode.u = inode.first_block
    shared = {entry: (position + offset) // 4 for entry, offset in offsets.items()}
    return Layout(2, inodes, shared, MAX_XATTRS, position, start, size)


class _Epoch2:
    """Implements :class:`bootc.formats.erofs.inodes.Rules`."""

    def __init__(self) -> None:
        self._encoder = XattrEncoder(XATTR_PREFIXES)

    def directory(self, directory: Directory) -> Inode:
        inode = self._inode(FileKind.DIRECTORY, directory.stat, ())
        inode.nlink = 2
        return inode

    def leaf(self, leaf: Leaf) -> Inode:
        content = leaf.content
        inode = self._inode(kind_of(content), leaf.stat, overlay_facts(content))
        fill_content(inode, content, max_symlink=MAX_SYMLINK_BYTES)
        if isinstance(content, Inline) and inode.size > MAX_INLINE_BYTES:
            raise LimitError(f"content of {inode.size} bytes is more than version 2 holds")
        if inode.chunked:
            inode.layout = CHUNK_BASED
            inode.u = _CHUNK_FORMAT
            # Other files lack the index; a reader finds their xattrs before it would look.
            inode.data = NULL_CHUNK if isinstance(content, External) else b""
        else:
            inode.layout = FLAT_INLINE if inode.data else FLAT_PLAIN
        inode.tail_bytes = len(inode.data)
        return inode

    def linked(self, inode: Inode) -> None:
        inode.nlink += 1

    def complete(self, inode: Inode, directory: Directory) -> None:
        inode.nlink += sum(child.kind is FileKind.DIRECTORY for child in inode.children)

    def _inode(self, kind: FileKind, meta: Stat, added: Pairs) -> Inode:
        check_stat(meta)
        mode = kind.mode_bits | meta.mode & 0o7777
        inode = Inode(kind, mode, meta.uid, meta.gid, meta.mtime_s % (1 << 64) * 10**9)
        if meta.xattrs or added:
            # Composefs's own first, then the tree's in the order of their unescaped names.
            escaped = [
                (OVERLAY_ESCAPED + name[len(OVERLAY) :] if name.startswith(OVERLAY) else name, v)
                for name, v in sorted(meta.xattrs.items())
            ]
            inode.xattrs, inode.taken = self._encoder.encode([*added, *escaped])
        return inode


def _place(inode: Inode, position: int) -> int:
    """Choose the inode's position at or after ``position``; return where it ends."""
    head = EXTENDED_INODE.size + inode.xattr_bytes
    if inode.layout == FLAT_INLINE:
        last_of_head = position + head - 1
        behind_tail = position + head + inode.size % BLOCK_SIZE
        if last_of_head // BLOCK_SIZE != behind_tail // BLOCK_SIZE:
            position += BLOCK_SIZE - last_of_head % BLOCK_SIZE
            position = align(position, SLOT_SIZE)
    inode.position = position
    return position + head + inode.tail_bytes
