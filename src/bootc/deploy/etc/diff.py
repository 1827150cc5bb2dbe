"""The local changes of ``/etc``: comparing two trees and listing the changes.

Owns the equality of two entries: kind, content, owner, group, mode, extended attributes, and
whether chattr(1) protects them. Times are not compared, because every copy has its own. The mode
of a symlink is not compared, because no file system keeps it. Pure.

The list differs from upstream's ``config-diff`` in one point: a directory is listed if it was
changed itself, not if an entry below it was changed. Otherwise it is as bootc, etc-merge
``compute_diff``: a removed tree is listed by its topmost path, all other changes by every path.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from bootc.formats.tree import (
    Content,
    Directory,
    External,
    Inline,
    Leaf,
    Node,
    Symlink,
)
from bootc.formats.verity import verity_digest

#: systemd compares its time with that of ``/usr`` to learn of an update: a copy would hide one.
_UPDATED_STAMP = b".updated"


class ChangeKind(enum.Enum):
    """The kind of a change. ``value`` is the word in reports."""

    ADDED = "Added"
    MODIFIED = "Modified"
    REMOVED = "Removed"


@dataclass(frozen=True, slots=True)
class Change:
    """A local change; ``path`` is relative to ``/etc``."""

    path: bytes
    kind: ChangeKind


def without_stamp(etc: Directory) -> Directory:
    """Return an ``/etc`` without the stamp of the last update, which belongs to one deployment."""
    entries = {name: node for name, node in etc.entries.items() if name != _UPDATED_STAMP}
    return Directory(etc.stat, entries)


def local_changes(pristine: Directory, current: Directory) -> tuple[Change, ...]:
    """List what ``current`` changed: added, then modified, then removed, each in order of names.

    The metadata of ``/etc`` itself is not listed.
    """
    found: dict[ChangeKind, list[Change]] = {kind: [] for kind in ChangeKind}
    stack = list(_entries(b"", without_stamp(pristine), without_stamp(current)))
    while stack:
        path, before, now = stack.pop()
        kind = _kind(before, now)
        if kind is not None:
            found[kind].append(Change(path, kind))
        if isinstance(now, Directory):
            stack += _entries(path, before, now)
    return tuple(change for changes in found.values() for change in changes)


def same(a: Node | None, b: Node | None) -> bool:
    """Tell whether two entries are equal, without comparing the entries of directories."""
    if a is b:
        return True
    if isinstance(a, Directory):
        return isinstance(b, Directory) and _same_stat(a, b)
    if isinstance(a, Leaf):
        return isinstance(b, Leaf) and _same_content(a.content, b.content) and _same_stat(a, b)
    return False


def same_tree(a: Node | None, b: Node | None) -> bool:
    """Tell whether two entries and everything below them are equal."""
    pending = [(a, b)]
    while pending:
        x, y = pending.pop()
        if not same(x, y):
            return False
        if isinstance(x, Directory) and isinstance(y, Directory):
            if x.entries.keys() != y.entries.keys():
                return False
            pending += [(node, y.entries[name]) for name, node in x.entries.items()]
    return True


def _entries(
    path: bytes, before: Node | None, now: Directory
) -> list[tuple[bytes, Node | None, Node | None]]:
    """Return what is below a directory on either side, the first name last."""
    was = before.entries if isinstance(before, Directory) else {}
    names = sorted(was.keys() | now.entries.keys(), reverse=True)
    prefix = path + b"/" if path else b""
    return [(prefix + name, was.get(name), now.entries.get(name)) for name in names]


def _kind(before: Node | None, now: Node | None) -> ChangeKind | None:
    if now is None:
        return ChangeKind.REMOVED
    if before is None:
        return ChangeKind.ADDED
    return None if same(before, now) else ChangeKind.MODIFIED


def _same_stat(a: Node, b: Node) -> bool:
    x, y = a.stat, b.stat
    modes_count = not (isinstance(a, Leaf) and isinstance(a.content, Symlink))
    return (
        (x.uid, x.gid) == (y.uid, y.gid)
        and x.xattrs == y.xattrs
        and x.protection == y.protection
        and (x.mode == y.mode or not modes_count)
    )


def _same_content(a: Content, b: Content) -> bool:
    if isinstance(a, External) and isinstance(b, External):
        return (a.digest, a.size_bytes) == (b.digest, b.size_bytes)
    # The image format decides which files are small enough to be stored inline.
    if isinstance(a, Inline) and isinstance(b, External):
        return _holds(b, a.data)
    if isinstance(a, External) and isinstance(b, Inline):
        return _holds(a, b.data)
    return a == b


def _holds(content: External, data: bytes) -> bool:
    if content.size_bytes != len(data):
        return False
    return verity_digest(data, content.digest.algorithm) == content.digest
