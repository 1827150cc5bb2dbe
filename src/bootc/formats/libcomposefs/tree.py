"""Trees as the tools of libcomposefs see them, and the lists that ``composefs-info`` prints.

``mkcomposefs`` and ``composefs-info`` disagree with composefs-rs in places: they believe
link counts instead of counting, keep the order of xattrs, and take dumpfiles that
composefs-rs refuses. bootc's own images follow composefs-rs. This package therefore has
everything about the other dialect: its readers and layout rules are subclasses of the
strict ones in ``formats``, which know nothing of it.

Source: the behaviour of the tools of libcomposefs 1.0.8.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from bootc.formats.dumptext import escape
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Content,
    Directory,
    External,
    Leaf,
    Node,
    Stat,
    Symlink,
    Unverified,
)


@dataclass(frozen=True, slots=True)
class Stated:
    """Numbers that an image or a dumpfile states of a node and that the tree itself determines.

    The C tools write them down again, right or wrong.
    """

    nlink: int
    #: Of a directory: the length of its entries in the image.
    size_bytes: int = 0
    #: Of a leaf: the directory and the name under which it is not a hard link.
    home: Directory | None = None
    name: bytes = b""


@dataclass(frozen=True, slots=True)
class CTree:
    """A tree, and what its source stated of the nodes. Nodes are told apart by identity."""

    root: Directory
    stated: dict[Node, Stated] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Omissions:
    """Metadata and files that an image of a directory leaves out."""

    times: bool = False
    #: Whiteouts are devices, too.
    devices: bool = False
    xattrs: bool = False
    #: Xattrs whose names do not begin with ``user.``.
    system_xattrs: bool = False


def as_scanned(root: Directory, omit: Omissions) -> None:
    """Change a tree of a directory as ``mkcomposefs`` reads it: without hard links."""
    seen: set[int] = set()
    pending = [root]
    for directory in pending:
        _omit(directory.stat, omit)
        for name, node in list(directory.entries.items()):
            if isinstance(node, Directory):
                pending.append(node)
            elif omit.devices and isinstance(node.content, CharDevice | BlockDevice):
                del directory.entries[name]
            elif id(node) in seen:
                directory.entries[name] = Leaf(node.stat, node.content)
            else:
                seen.add(id(node))
                _omit(node.stat, omit)


def _omit(stat: Stat, omit: Omissions) -> None:
    if omit.times:
        stat.mtime_s = stat.mtime_ns = 0
    if omit.xattrs:
        stat.xattrs = {}
    elif omit.system_xattrs:
        stat.xattrs = {
            name: value for name, value in stat.xattrs.items() if name.startswith(b"user.")
        }


def only(tree: CTree, names: Collection[bytes]) -> CTree:
    """Return the tree without the entries of the root that are not among ``names``."""
    entries = {name: node for name, node in tree.root.entries.items() if name in names}
    root = Directory(tree.root.stat, entries)
    stated = dict(tree.stated)
    if tree.root in stated:
        stated[root] = stated[tree.root]
    return CTree(root, stated)


def object_path(content: Content) -> bytes:
    """Return the path of the content below the object store, empty if it is not there."""
    match content:
        case External():
            return content.object_path
        case Unverified():
            return content.path
        case _:
            return b""


def objects(root: Directory) -> set[bytes]:
    """Return the paths of all content that is not in the image."""
    leaves = (node for _, node in root.walk() if isinstance(node, Leaf))
    return {path for leaf in leaves if (path := object_path(leaf.content))}


def list_lines(root: Directory) -> Iterator[bytes]:
    """Yield the lines of ``composefs-info ls``; only the first name of a file has its content."""
    seen: set[int] = set()
    for path, node in root.walk():
        if node is root:
            continue
        # A path ends the line or stands before a tab: its spaces need no escape.
        name = b" ".join(map(escape, path.split(b" ")))
        if isinstance(node, Directory):
            yield name + b"/\t\n"
        elif id(node) in seen:
            yield name + b"\n"
        else:
            seen.add(id(node))
            yield name + _where(node.content) + b"\n"


def _where(content: Content) -> bytes:
    if isinstance(content, Symlink):
        return b"\t-> " + escape(content.target)
    path = object_path(content)
    return b"\t@ " + escape(path) if path else b""
