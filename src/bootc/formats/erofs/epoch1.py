"""Epoch 1 (versions 0 and 1): the layout of the C tools, and composefs-rs's default.

Inodes are numbered breadth first and use the smaller record where possible. composefs adds
to the tree a mark on the root and 256 stubs in it, which hide the objects below. It
replaces a user's own whiteouts and ``trusted.overlay.*`` names by forms that overlayfs
passes through.

Where the two implementations disagree this follows composefs-rs: a hard-linked inode is
numbered where a depth-first walk meets it first, link counts are counted, times before
1970 come after all others, and a whiteout cannot be a hard link. ``libcomposefs.erofs``
has the rules of the other. Both replace marks that a tree already has instead of
doubling them, and both take a whiteout in the root for a user's even if it is named
like a stub.

The placement rules are frozen: one byte in another place changes the image digest.
"""

from __future__ import annotations

from operator import itemgetter

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
    MAX_TAIL_BYTES,
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
    COMPACT_INODE,
    EXTENDED_INODE,
    FLAT_INLINE,
    FLAT_PLAIN,
    MAX_XATTRS,
    NULL_CHUNK,
    OPAQUE,
    OPAQUE_MARKS,
    OVERLAY,
    OVERLAY_ESCAPED,
    SLOT_SIZE,
    STUB_NAMES,
    WHITEOUT_MARKS,
    WHITEOUTS_MARKS,
    XATTR_PREFIXES,
    align,
    chunk_bits,
    chunk_count,
)
from bootc.formats.erofs.xattrs import XattrEncoder, full_name, split_entry
from bootc.formats.tree import CharDevice, Directory, FileKind, Leaf, Stat, kind_of

#: Index 5, ``lustre.``, is known only when reading.
PREFIXES = {index: prefix for index, prefix in XATTR_PREFIXES.items() if index != 5}

_MARKS_OF_WHITEOUT: Pairs = tuple((name, b"") for name in WHITEOUT_MARKS)
_MARKS_OF_PARENT: Pairs = tuple((name, b"") for name in WHITEOUTS_MARKS)
_MARKS_OF_OPAQUE_PARENT: Pairs = _MARKS_OF_PARENT + tuple((name, b"x") for name in OPAQUE_MARKS)


def lay_out(root: Directory, version: int) -> Layout:
    """Decide everything about the image of ``root``.

    Raises:
        Unrepresentable: the tree contains something that the format cannot store.
    """
    return lay_out_by(Epoch1(root, version), root)


def lay_out_by(rules: Epoch1, root: Directory) -> Layout:
    """Decide everything about the image of ``root`` by given rules.

    Raises:
        Unrepresentable: the tree contains something that the format cannot store.
    """
    inodes = collect(root, rules)
    rules.collected(inodes)
    inodes = _breadth_first(inodes[0])
    build_time_ns = min(inode.mtime_ns for inode in inodes)
    offsets = table_offsets(sorted(shared_entries(inodes), key=_table_key, reverse=True))
    measure_xattrs(inodes, offsets, rules.max_shared)
    position = FIRST_INODE
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
    table = align(position, SLOT_SIZE)
    start = data_start(table, offsets)
    size = assign_blocks(inodes, start)
    for inode in inodes:
        if inode.chunked:
            # A table that went to a block leaves half of the block's number here.
            inode.u = inode.first_block & 0xFFFF0000 | chunk_bits(inode.size) - 12
        elif inode.first_block:
            inode.u = inode.first_block
    base = table % BLOCK_SIZE
    return Layout(
        rules.version,
        inodes,
        {entry: (base + offset) // 4 for entry, offset in offsets.items()},
        rules.max_shared,
        table,
        start,
        size,
        has_acl=rules.encoder.has_acl,
        build_time_ns=build_time_ns,
        xattr_block=table // BLOCK_SIZE,
    )


class Epoch1:
    """Implements :class:`bootc.formats.erofs.inodes.Rules`."""

    #: Added to times before 1970: composefs-rs compares them as unsigned numbers.
    time_base = 1 << 64
    #: More shared xattrs of one inode are stored with the inode.
    max_shared = MAX_XATTRS

    def __init__(self, root: Directory, version: int) -> None:
        self.version = version
        self.encoder = XattrEncoder(PREFIXES)
        self._root = root
        self._parent_marks = _MARKS_OF_OPAQUE_PARENT if version >= 1 else _MARKS_OF_PARENT

    def directory(self, directory: Directory) -> Inode:
        """Return the inode of a directory before its entries are known."""
        inode = self._inode(FileKind.DIRECTORY, directory.stat)
        inode.nlink = 2
        return inode

    def leaf(self, leaf: Leaf) -> Inode:
        """Return the inode of anything else; a whiteout becomes a marked regular file."""
        content = leaf.content
        if isinstance(content, CharDevice) and content.rdev == 0:
            inode = self._inode(FileKind.REGULAR, leaf.stat)
            inode.whiteout = True
            self._set_xattrs(inode, leaf.stat.xattrs, _MARKS_OF_WHITEOUT)
            return inode
        inode = self._inode(kind_of(content), leaf.stat)
        fill_content(inode, content)
        if inode.chunked:
            inode.data = NULL_CHUNK * chunk_count(inode.size)
        self._set_xattrs(inode, leaf.stat.xattrs, overlay_facts(content))
        return inode

    def linked(self, inode: Inode) -> None:
        """Count one more name of a leaf, and refuse one more of a whiteout."""
        inode.nlink += 1
        if inode.whiteout:
            raise LimitError("a whiteout (device 0:0) cannot be a hard link")

    def complete(self, inode: Inode, directory: Directory) -> None:
        """Count the subdirectories, add composefs's marks, and to the root its stubs."""
        added: Pairs = ()
        for child in inode.children:
            if child.kind is FileKind.DIRECTORY:
                inode.nlink += 1
            elif child.whiteout and self.marks_parent(child, directory):
                added = self._parent_marks
        if directory is self._root:
            added += ((OPAQUE, b"y"),)
            self._add_stubs(inode, directory.stat)
        self._set_xattrs(inode, directory.stat.xattrs, added)

    def marks_parent(self, whiteout: Inode, directory: Directory) -> bool:
        """Return whether a whiteout marks the directory it is in."""
        return True

    def collected(self, inodes: list[Inode]) -> None:
        """Correct the inodes before they are numbered."""

    def _inode(self, kind: FileKind, meta: Stat) -> Inode:
        check_stat(meta)
        seconds = meta.mtime_s
        if seconds < 0:
            seconds += self.time_base
        mode = kind.mode_bits | meta.mode & 0o7777
        return Inode(kind, mode, meta.uid, meta.gid, seconds * 10**9 + meta.mtime_ns)

    def _set_xattrs(self, inode: Inode, own: dict[bytes, bytes], added: Pairs) -> None:
        """Escape the tree's own xattrs, add composefs's, sort and encode."""
        if not own:
            pairs = sorted(added)
        else:
            merged = {
                OVERLAY_ESCAPED + name[len(OVERLAY) :] if name.startswith(OVERLAY) else name: value
                for name, value in own.items()
            }
            merged.update(added)
            pairs = sorted(merged.items())
        if pairs:
            inode.xattrs, inode.taken = self.encoder.encode(pairs)

    def _add_stubs(self, root: Inode, meta: Stat) -> None:
        label = {k: v for k, v in meta.xattrs.items() if k == b"security.selinux"}
        present = set(root.names)
        entries = list(zip(root.names, root.children, strict=True))
        for name in STUB_NAMES:
            if name not in present:
                stub = self._inode(FileKind.CHAR_DEVICE, meta)
                stub.mode = FileKind.CHAR_DEVICE.mode_bits | 0o644
                stub.home = root
                stub.name = name
                self._set_xattrs(stub, label, ())
                entries.append((name, stub))
        entries.sort(key=itemgetter(0))
        root.names = [name for name, _ in entries]
        root.children = [child for _, child in entries]


def _breadth_first(root: Inode) -> list[Inode]:
    """Number the inodes, each where it is at home."""
    order = [root]
    queue = [root]
    for directory in queue:
        for name, child in zip(directory.names, directory.children, strict=True):
            if child.home is directory and child.name == name:
                child.number = len(order)
                order.append(child)
                if child.kind is FileKind.DIRECTORY:
                    queue.append(child)
    return order


def _table_key(entry: bytes) -> tuple[bytes, int, bytes]:
    index, suffix, value = split_entry(entry)
    return full_name(index, suffix), len(value), value


def _split_content(inode: Inode) -> None:
    """Decide what goes to whole blocks and what stays behind the inode."""
    if inode.kind is FileKind.DIRECTORY:
        pack_entries(inode)
    elif inode.chunked:
        inode.layout = CHUNK_BASED
        inode.tail_bytes = len(inode.data)
    elif inode.kind is FileKind.SYMLINK:
        inode.tail_bytes = len(inode.data)
    elif inode.data:
        inode.blocks, inode.tail_bytes = divmod(len(inode.data), BLOCK_SIZE)
        if inode.tail_bytes > MAX_TAIL_BYTES:
            inode.blocks += 1
            inode.tail_bytes = 0


def _place(inode: Inode, position: int) -> int:
    """Choose the inode's position at or after ``position``; return where it ends."""
    position = align(position, SLOT_SIZE)
    record = COMPACT_INODE.size if inode.compact else EXTENDED_INODE.size
    head = record + inode.xattr_bytes
    if inode.kind is FileKind.SYMLINK:
        last = position + head + inode.tail_bytes - 1
        if head + inode.tail_bytes >= BLOCK_SIZE:
            inode.blocks = 1
            inode.tail_bytes = 0
        if position // BLOCK_SIZE != last // BLOCK_SIZE:
            position = align(position, BLOCK_SIZE)
    elif inode.tail_bytes:
        room = BLOCK_SIZE - (position + head) % BLOCK_SIZE
        if room < inode.tail_bytes:
            pad = align(room, SLOT_SIZE)
            if inode.tail_bytes <= BLOCK_SIZE - (position + head + pad) % BLOCK_SIZE:
                position += pad
            else:
                # Only a chunk table is this long. Kernels cannot find it in its block, but
                # such files are hundreds of terabytes large.
                inode.blocks += 1
                inode.tail_bytes = 0
                position = align(position, BLOCK_SIZE)
    if not inode.chunked:
        inode.layout = FLAT_INLINE if inode.tail_bytes else FLAT_PLAIN
    inode.position = position
    return position + head + inode.tail_bytes
