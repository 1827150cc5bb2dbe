"""Makes the inodes of an image from a tree, for both epochs.

:func:`collect` walks the tree once. The rules of an epoch (``epoch1``, ``epoch2``) make an
inode of each node. The rules that both epochs share are here: numbers must fit their
fields, some shapes cannot be stored, and overlayfs finds the content of a file by xattrs.
The tree is not changed.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

from bootc.errors import Error
from bootc.formats.digest import Algorithm
from bootc.formats.erofs.structs import (
    MAX_NAME_BYTES,
    MAX_SYMLINK_BYTES,
    METACOPY,
    REDIRECT,
    chunk_count,
)
from bootc.formats.erofs.xattrs import ImpossibleXattr
from bootc.formats.tree import (
    MAX_DEPTH,
    BlockDevice,
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    FileKind,
    Inline,
    Leaf,
    Node,
    Socket,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)
from bootc.printable import printable

#: Larger files would need more chunk indexes than the C tools write.
MAX_CHUNKS = 1024

_MAX_U32 = 0xFFFFFFFF
_NAME = re.compile(rb"(?!\.\.?\Z)[^/\0]{1,%d}\Z" % MAX_NAME_BYTES)
_METACOPY_HEADER = {
    algorithm: bytes([0, 4 + algorithm.digest_size, 0, algorithm.value]) for algorithm in Algorithm
}

Pairs = tuple[tuple[bytes, bytes], ...]


class Unrepresentable(Error):
    """The tree contains something that the image format cannot store."""


class LimitError(Exception):
    """The reason why an inode cannot be stored; :func:`collect` adds its path."""


@dataclass(slots=True, eq=False)
class Inode:
    """One inode of the image. The layout sets the fields of the second part."""

    kind: FileKind
    #: Type and permissions.
    mode: int
    uid: int
    gid: int
    #: In nanoseconds, as build times are compared.
    mtime_ns: int
    #: Encoded entries in their order, and the bits of their names in the filter.
    xattrs: tuple[bytes, ...] = ()
    taken: int = 0
    nlink: int = 1
    #: File size; that of a directory is known only once it is laid out.
    size: int = 0
    #: Bytes stored in the image: small files, link targets, chunk indexes.
    data: bytes = b""
    chunked: bool = False
    #: The whiteout of a user, which became a regular file.
    whiteout: bool = False
    #: The node of the tree, or None for an inode that composefs adds.
    node: Node | None = None
    #: Of a directory: everything in it, ``.`` and ``..`` included, sorted by name.
    names: Sequence[bytes] = ()
    children: Sequence[Inode] = ()
    #: The directory and the name under which a walk numbers this; the root is its own.
    home: Inode | None = None
    name: bytes = b""

    number: int = 0
    layout: int = 0
    compact: bool = False
    xattr_bytes: int = 0
    position: int = 0
    #: First data block, device number, or format of the chunks.
    u: int = 0
    #: Whole blocks in the data area, and what follows the inode directly.
    blocks: int = 0
    first_block: int = 0
    tail_bytes: int = 0
    #: Of a directory: index of the first entry of each block (or tail) but the first.
    cuts: Sequence[int] = ()


class Rules(Protocol):
    """The rules of an epoch for single nodes. Each method may raise :class:`LimitError`."""

    def directory(self, directory: Directory) -> Inode:
        """Return the inode of a directory before its entries are known."""

    def leaf(self, leaf: Leaf) -> Inode:
        """Return the inode of anything else."""

    def linked(self, inode: Inode) -> None:
        """Note one more name of a leaf."""

    def complete(self, inode: Inode, directory: Directory) -> None:
        """Finish the inode of a directory whose entries are all there."""


@dataclass(slots=True)
class _Frame:
    """A directory being walked."""

    inode: Inode
    directory: Directory
    pending: Iterator[bytes]
    #: Of the inode, too.
    children: list[Inode]


def collect(root: Directory, rules: Rules) -> list[Inode]:
    """Return the inodes in the order of a walk: depth first, names bytewise.

    A leaf with several names stands where the walk meets it first.

    Raises:
        Unrepresentable: a name, an xattr, a number or the shape of the tree cannot be stored.
    """
    inodes: list[Inode] = []
    known: dict[int, Inode] = {}
    stack: list[_Frame] = []
    try:
        top = _enter(root, b"", stack, rules)
        known[id(root)] = top
        inodes.append(top)
        while stack:
            if not _walk(stack, inodes, known, rules):
                rules.complete(stack[-1].inode, stack[-1].directory)
                _add_dots(stack.pop().inode)
    except (LimitError, ImpossibleXattr) as exc:
        where = b"/".join(frame.inode.name for frame in stack)
        if stack and len(stack[-1].inode.children) < len(stack[-1].inode.names):
            where += b"/" + stack[-1].inode.names[len(stack[-1].inode.children)]
        raise Unrepresentable(f"{printable(where) or '/'}: {exc}") from None
    return inodes


def _enter(directory: Directory, name: bytes, stack: list[_Frame], rules: Rules) -> Inode:
    if len(stack) + 1 >= MAX_DEPTH:
        raise Unrepresentable(f"directories nested deeper than {MAX_DEPTH}")
    names = sorted(directory.entries)
    if not all(map(_NAME.match, names)):
        bad = next(name for name in names if not _NAME.match(name))
        raise LimitError(f"impossible file name {printable(bad, 300)}")
    inode = rules.directory(directory)
    inode.node = directory
    inode.name = name
    inode.home = stack[-1].inode if stack else inode
    inode.names = names
    children: list[Inode] = []
    inode.children = children
    stack.append(_Frame(inode, directory, iter(names), children))
    return inode


def _walk(stack: list[_Frame], inodes: list[Inode], known: dict[int, Inode], rules: Rules) -> bool:
    """Continue in the innermost directory; return True if the walk entered another one."""
    frame = stack[-1]
    home = frame.inode
    entries = frame.directory.entries
    children = frame.children
    for name in frame.pending:
        node = entries[name]
        child = known.get(id(node))
        if child is None:
            if isinstance(node, Directory):
                child = known[id(node)] = _enter(node, name, stack, rules)
                inodes.append(child)
                children.append(child)
                return True
            child = known[id(node)] = rules.leaf(node)
            child.node = node
            child.home = home
            child.name = name
            inodes.append(child)
        elif child.kind is FileKind.DIRECTORY:
            raise LimitError("the same directory appears twice in the tree")
        else:
            rules.linked(child)
        children.append(child)
    return False


def _add_dots(inode: Inode) -> None:
    assert inode.home is not None
    names, children = list(inode.names), list(inode.children)
    for name, child in ((b".", inode), (b"..", inode.home)):
        at = bisect_left(names, name)
        names.insert(at, name)
        children.insert(at, child)
    inode.names, inode.children = names, children


def check_stat(meta: Stat) -> None:
    """Check that owner and time fit their fields.

    Raises:
        LimitError: they do not.
    """
    if not (0 <= meta.uid <= _MAX_U32 and 0 <= meta.gid <= _MAX_U32):
        raise LimitError(f"owner {meta.uid}:{meta.gid} does not fit 32 bits")
    if not (-(1 << 63) <= meta.mtime_s < 1 << 63 and 0 <= meta.mtime_ns < 10**9):
        raise LimitError(f"mtime {meta.mtime_s} s {meta.mtime_ns} ns is out of range")


def overlay_facts(content: Content) -> Pairs:
    """Return the xattrs by which overlayfs finds the content of a file."""
    match content:
        case External():
            digest = content.digest
            metacopy = METACOPY, _METACOPY_HEADER[digest.algorithm] + digest.raw
            path = content.object_path
            return (metacopy, (REDIRECT, b"/" + path)) if path else (metacopy,)
        case Unverified():
            return (METACOPY, b""), (REDIRECT, b"/" + content.path)
        case Sparse():
            return ((METACOPY, b""),)
        case _:
            return ()


def fill_content(inode: Inode, content: Content, *, max_symlink: int = MAX_SYMLINK_BYTES) -> None:
    """Set the fields that both epochs store alike: sizes, data and device numbers.

    Raises:
        LimitError: a value is out of range.
    """
    match content:
        case External() | Unverified() | Sparse():
            inode.size = content.size_bytes
            inode.chunked = True
            if inode.size < 0 or chunk_count(inode.size) > MAX_CHUNKS:
                raise LimitError(f"file size {inode.size} is out of range")
        case Inline():
            inode.size = len(content.data)
            inode.data = content.data
        case Symlink():
            inode.size = len(content.target)
            inode.data = content.target
            if not 0 < inode.size <= max_symlink or b"\0" in content.target:
                raise LimitError(f"impossible link target of {inode.size} bytes")
        case CharDevice() | BlockDevice():
            inode.u = content.rdev
            if not 0 <= content.rdev <= _MAX_U32:
                raise LimitError(f"device number {content.rdev} does not fit 32 bits")
        case Fifo() | Socket():
            pass
        case _:
            assert_never(content)
