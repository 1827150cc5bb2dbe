"""Trees as the C tools of composefs see them.

Owns: what ``mkcomposefs`` makes of a directory before it writes the image, and what
``composefs-info`` tells of an image besides its dump. The formats themselves are the
business of ``erofs`` and ``dumpfile``, in the dialect ``C``.

Source: the behaviour of the tools of libcomposefs 1.0.8.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from bootc.formats.dumptext import escape
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Content,
    Directory,
    External,
    Leaf,
    Stat,
    Symlink,
    Unverified,
)


@dataclass(frozen=True, slots=True)
class Omissions:
    """What an image of a directory is to be made without."""

    times: bool = False
    #: Whiteouts are devices, too.
    devices: bool = False
    xattrs: bool = False
    #: Of xattrs, those that are not the users' (``user.``).
    system_xattrs: bool = False


def as_scanned(root: Directory, omit: Omissions) -> None:
    """Change a tree of a directory to what ``mkcomposefs`` sees: it knows no hard links."""
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


def only(root: Directory, names: Collection[bytes]) -> Directory:
    """Return the tree without the entries of the root that are not among ``names``."""
    entries = {name: node for name, node in root.entries.items() if name in names}
    return Directory(root.stat, entries, root.stated)


def object_path(content: Content) -> bytes:
    """Return where below the object store the content is, empty for nowhere."""
    match content:
        case External():
            named = content.digest.object_path.encode()
            return named if content.path is None else content.path
        case Unverified():
            return content.path
        case _:
            return b""


def objects(root: Directory) -> set[bytes]:
    """Return the paths of all content that is not in the image."""
    leaves = (node for _, node in root.walk() if isinstance(node, Leaf))
    return {path for leaf in leaves if (path := object_path(leaf.content))}


def list_lines(root: Directory) -> Iterator[bytes]:
    """Yield the lines of ``composefs-info ls``: what is where, of files with many names once."""
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
