"""A file system tree as a composefs image: EROFS metadata, epoch 1, byte for byte.

The image of a tree is fully determined, so its fs-verity digest names the tree: a
digest in a kernel command line is checked against what other composefs
implementations write. ``inodes`` decides what is stored, ``layout`` where, this
module writes it down.

Version 1 is what composefs tools write by default; version 0 differs in the version
number and in two marks on directories with a user's whiteouts.
"""

from __future__ import annotations

import stat

from bootc.formats.erofs.inodes import Inode, Xattrs, inodes_of
from bootc.formats.erofs.layout import Layout, lay_out, split_xattr_name
from bootc.formats.erofs.structs import (
    BLOCK_SIZE,
    CHUNK_BASED,
    COMPACT_INODE,
    COMPOSEFS_HAS_ACL,
    COMPOSEFS_HEADER,
    COMPOSEFS_HEADER_VERSION,
    COMPOSEFS_MAGIC,
    DIRENT,
    EXTENDED,
    EXTENDED_INODE,
    FLAT_INLINE,
    FLAT_PLAIN,
    SLOT_SIZE,
    SUPERBLOCK,
    SUPERBLOCK_OFFSET,
    XATTR_ACL_INDEXES,
    XATTR_ENTRY,
    XATTR_FILTER_SEED,
    XATTR_HEADER,
    Superblock,
    align,
    chunk_bits,
)
from bootc.formats.tree import Directory
from bootc.formats.xxh32 import xxh32

_DIRENT_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFLNK: 7,
}
_FORMAT_MASK = 0o170000


def mkfs_erofs(root: Directory, *, version: int = 1) -> bytes:
    """Return the image of ``root`` in composefs version 0 or 1.

    Raises:
        Unrepresentable: the tree holds something the format has no room for.
    """
    if version not in (0, 1):
        raise ValueError(f"composefs version {version}")
    layout = lay_out(inodes_of(root, version))
    image = bytearray(layout.size)
    xattrs = _XattrWriter(layout)
    for number, inode in enumerate(layout.inodes):
        _write_inode(image, inode, number, xattrs)
    xattrs.write_shared(image)
    _write_headers(image, layout, version, has_acl=xattrs.has_acl)
    return bytes(image)


def _write_headers(image: bytearray, layout: Layout, version: int, *, has_acl: bool) -> None:
    COMPOSEFS_HEADER.pack_into(
        image,
        0,
        COMPOSEFS_MAGIC,
        COMPOSEFS_HEADER_VERSION,
        COMPOSEFS_HAS_ACL if has_acl else 0,
        version,
    )
    build_time, build_time_ns = divmod(layout.build_time_ns, 10**9)
    superblock = Superblock(
        root_nid=layout.inodes[0].position // SLOT_SIZE,
        inodes=len(layout.inodes),
        build_time=build_time,
        build_time_ns=build_time_ns,
        blocks=layout.size // BLOCK_SIZE,
        xattr_block=layout.inodes_end // BLOCK_SIZE,
    )
    SUPERBLOCK.pack_into(image, SUPERBLOCK_OFFSET, *superblock)


def _write_inode(image: bytearray, inode: Inode, number: int, xattrs: _XattrWriter) -> None:
    if inode.chunked:
        # A table that went to a block leaves half of the block's number here.
        u = inode.first_block & 0xFFFF0000 | chunk_bits(inode.size) - 12
        layout = CHUNK_BASED
    else:
        u = inode.first_block or inode.rdev
        layout = FLAT_INLINE if inode.tail_bytes else FLAT_PLAIN
    icount = (inode.xattr_bytes - XATTR_HEADER.size) // 4 + 1 if inode.xattrs else 0
    if inode.compact:
        COMPACT_INODE.pack_into(
            image,
            inode.position,
            layout << 1,
            icount,
            inode.mode,
            inode.nlink,
            inode.size,
            u,
            number,
            inode.uid,
            inode.gid,
        )
        offset = inode.position + COMPACT_INODE.size
    else:
        EXTENDED_INODE.pack_into(
            image,
            inode.position,
            layout << 1 | EXTENDED,
            icount,
            inode.mode,
            inode.size,
            u,
            number,
            inode.uid,
            inode.gid,
            *divmod(inode.mtime_ns, 10**9),
            inode.nlink,
        )
        offset = inode.position + EXTENDED_INODE.size
    if inode.xattrs:
        body = xattrs.body(inode.xattrs)
        image[offset : offset + len(body)] = body
        offset += len(body)
    if inode.entries:
        _write_directory(image, inode, offset)
    elif inode.data:
        _write_data(image, inode, offset)


def _write_data(image: bytearray, inode: Inode, tail: int) -> None:
    data = inode.data
    if inode.blocks:
        if inode.chunked:
            data = data.ljust(BLOCK_SIZE, b"\xff")
        start = inode.first_block * BLOCK_SIZE
        whole = data[: inode.blocks * BLOCK_SIZE]
        image[start : start + len(whole)] = whole
        data = data[len(whole) :]
    image[tail : tail + len(data)] = data


def _write_directory(image: bytearray, inode: Inode, tail: int) -> None:
    """Each block, and the tail, is a run of records followed by their names."""
    block = inode.first_block * BLOCK_SIZE
    for i, start in enumerate((0, *inode.cuts)):
        end = inode.cuts[i] if i < len(inode.cuts) else len(inode.entries)
        piece = inode.entries[start:end]
        name_offset = DIRENT.size * len(piece)
        records = []
        for name, child in piece:
            nid = child.position // SLOT_SIZE
            records.append(_pack_dirent(nid, name_offset, _DIRENT_TYPES[child.mode & _FORMAT_MASK]))
            name_offset += len(name)
        records += [name for name, _ in piece]
        offset = block + i * BLOCK_SIZE if i < inode.blocks else tail
        image[offset : offset + name_offset] = b"".join(records)


_pack_dirent = DIRENT.pack


class _XattrWriter:
    """Encodes xattrs: shared ones as numbers of words from the table's first block."""

    def __init__(self, layout: Layout) -> None:
        self.has_acl = False
        self._table = layout.inodes_end
        base = layout.inodes_end % BLOCK_SIZE
        self._ids = {
            pair: ((base + offset) // 4).to_bytes(4, "little")
            for pair, offset in layout.shared.items()
        }
        self._bodies: dict[Xattrs, bytes] = {}
        self._names: dict[bytes, tuple[int, bytes, int]] = {}

    def body(self, xattrs: Xattrs) -> bytes:
        """Return what stands between an inode's record and its tail."""
        body = self._bodies.get(xattrs)
        if body is None:
            taken = 0
            ids = []
            local = []
            for pair in xattrs:
                taken |= self._name(pair[0])[2]
                shared = self._ids.get(pair)
                if shared is not None:
                    ids.append(shared)
                else:
                    local.append(self._entry(*pair))
            header = XATTR_HEADER.pack(taken ^ 0xFFFFFFFF, len(ids))
            body = b"".join((header, *ids, *local))
            self._bodies[xattrs] = body
        return body

    def write_shared(self, image: bytearray) -> None:
        """Write the table; its order is that of the layout."""
        table = b"".join([self._entry(*pair) for pair in self._ids])
        image[self._table : self._table + len(table)] = table

    def _entry(self, name: bytes, value: bytes) -> bytes:
        index, suffix, _ = self._name(name)
        entry = XATTR_ENTRY.pack(len(suffix), index, len(value)) + suffix + value
        return entry.ljust(align(len(entry), 4), b"\0")

    def _name(self, name: bytes) -> tuple[int, bytes, int]:
        """Return index, suffix and filter bit of a name."""
        known = self._names.get(name)
        if known is None:
            index, suffix = split_xattr_name(name)
            self.has_acl |= index in XATTR_ACL_INDEXES
            known = index, suffix, 1 << xxh32(suffix, XATTR_FILTER_SEED + index) % 32
            self._names[name] = known
        return known
