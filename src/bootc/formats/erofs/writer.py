"""Writes a file system tree as a composefs image: EROFS metadata, byte for byte.

The tree determines every byte of its image, so the fs-verity digest of the image names
the tree. Other implementations of composefs must compute the same digest. ``inodes`` and
the epochs decide the content and the layout; this module only writes.

Version 1 is what composefs tools write by default; version 0 differs in the version
number and in two marks on directories with a user's whiteouts. Both are called epoch 1.
Version 2, epoch 2, is composefs-rs's older and unrelated layout.
"""

from __future__ import annotations

from bootc.formats.erofs import epoch1, epoch2
from bootc.formats.erofs.inodes import Inode
from bootc.formats.erofs.layout import FIRST_INODE, Layout
from bootc.formats.erofs.structs import (
    BLOCK_SIZE,
    COMPACT_INODE,
    COMPOSEFS_HAS_ACL,
    COMPOSEFS_HEADER,
    COMPOSEFS_HEADER_VERSION,
    COMPOSEFS_MAGIC,
    DIRENT,
    EXTENDED,
    EXTENDED_INODE,
    SLOT_SIZE,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
    XATTR_HEADER,
    Superblock,
)
from bootc.formats.tree import Directory, FileKind

_MASK_64 = (1 << 64) - 1


def mkfs_erofs(root: Directory, *, version: int = 1) -> bytes:
    """Return the image of ``root``.

    Args:
        root: The tree; it is not changed.
        version: 0, 1 or 2.

    Raises:
        Unrepresentable: the tree contains something that the format cannot store.
    """
    if version in (0, 1):
        return write_layout(epoch1.lay_out(root, version))
    if version == 2:
        return write_layout(epoch2.lay_out(root))
    raise ValueError(f"composefs version {version}")


def write_layout(layout: Layout) -> bytes:
    """Return the image with this layout."""
    pieces = [_headers(layout)]
    blocks: list[bytes] = []
    position = FIRST_INODE
    body_of = _XattrBodies(layout).body
    for inode in layout.inodes:
        if inode.position != position:
            pieces.append(bytes(inode.position - position))
        record = _record(inode) + body_of(inode) if inode.xattrs else _record(inode)
        tail = _content(inode, blocks) if inode.data or inode.names else b""
        pieces.append(record)
        pieces.append(tail)
        position = inode.position + len(record) + len(tail)
    pieces.append(bytes(layout.table - position))
    pieces.extend(layout.shared)
    pieces.append(bytes(layout.data_start - layout.table - sum(map(len, layout.shared))))
    return b"".join(pieces + blocks)


def _headers(layout: Layout) -> bytes:
    header = COMPOSEFS_HEADER.pack(
        COMPOSEFS_MAGIC,
        COMPOSEFS_HEADER_VERSION,
        COMPOSEFS_HAS_ACL if layout.has_acl else 0,
        layout.version,
    )
    build_time, build_time_ns = divmod(layout.build_time_ns, 10**9)
    superblock = Superblock(
        root_nid=layout.inodes[0].position // SLOT_SIZE,
        inodes=len(layout.inodes),
        build_time=build_time & _MASK_64,
        build_time_ns=build_time_ns,
        blocks=layout.size // BLOCK_SIZE,
        xattr_block=layout.xattr_block,
    )
    return header.ljust(SUPERBLOCK_OFFSET, b"\0") + SUPERBLOCK.pack(*superblock)


def _record(inode: Inode) -> bytes:
    icount = (inode.xattr_bytes - XATTR_HEADER.size) // 4 + 1 if inode.xattrs else 0
    if inode.compact:
        return COMPACT_INODE.pack(
            inode.layout << 1,
            icount,
            inode.mode,
            inode.nlink,
            inode.size,
            inode.u,
            inode.number,
            inode.uid,
            inode.gid,
        )
    seconds, nanoseconds = divmod(inode.mtime_ns, 10**9)
    return EXTENDED_INODE.pack(
        inode.layout << 1 | EXTENDED,
        icount,
        inode.mode,
        inode.size,
        inode.u,
        inode.number,
        inode.uid,
        inode.gid,
        seconds & _MASK_64,
        nanoseconds,
        inode.nlink,
    )


def _content(inode: Inode, blocks: list[bytes]) -> bytes:
    """Add the inode's whole blocks to ``blocks``; return its tail."""
    if inode.kind is FileKind.DIRECTORY:
        return _directory(inode, blocks)
    if not inode.blocks:
        return inode.data
    whole = inode.data[: inode.blocks * BLOCK_SIZE]
    fill = b"\xff" if inode.chunked else b"\0"
    blocks.append(whole.ljust(inode.blocks * BLOCK_SIZE, fill))
    return inode.data[len(whole) :]


def _directory(inode: Inode, blocks: list[bytes]) -> bytes:
    """Each block, and the tail, is a run of records followed by their names."""
    pack = DIRENT.pack
    start = 0
    tail = b""
    for i, end in enumerate((*inode.cuts, len(inode.names))):
        names = inode.names[start:end]
        name_offset = DIRENT.size * len(names)
        piece = []
        for name, child in zip(names, inode.children[start:end], strict=True):
            piece.append(pack(child.position // SLOT_SIZE, name_offset, child.kind.dirent_type))
            name_offset += len(name)
        piece += names
        if i < inode.blocks:
            blocks.append(b"".join(piece).ljust(BLOCK_SIZE, b"\0"))
        else:
            tail = b"".join(piece)
        start = end
    return tail


class _XattrBodies:
    """Writes the xattrs between an inode's record and its tail."""

    def __init__(self, layout: Layout) -> None:
        self._max_shared = layout.max_shared
        self._ids = {entry: n.to_bytes(4, "little") for entry, n in layout.shared.items()}

    def body(self, inode: Inode) -> bytes:
        ids: list[bytes] = []
        local = []
        shared = self._ids
        for entry in inode.xattrs:
            if entry in shared and len(ids) < self._max_shared:
                ids.append(shared[entry])
            else:
                local.append(entry)
        header = XATTR_HEADER.pack(inode.taken ^ 0xFFFFFFFF, len(ids))
        return b"".join((header, *ids, *local))
