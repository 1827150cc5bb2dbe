"""The layers of an image, applied to one tree.

The module has the rules by which the entries of layers make a file system: order, replacement,
whiteouts, opaque directories, hard links. For an image that composefs-rs accepts, the tree is the
same as there, so image ids agree. An entry whose path leads upwards (``..``) is refused. Every
refusal names the layer and the entry.

Two differences concern images that composefs-rs refuses but container engines accept. If no layer
lists a parent directory, it is made with mode 0755, owner root and mtime 0. If a parent is a
symlink of the image, it is followed inside the image (:mod:`bootc.oci.resolve`); so it is for
whiteouts and the targets of hard links.

Sources: OCI image specification 1.1, "Image Layer Filesystem Changeset";
composefs-rs 0.9, ``composefs-oci/src/image.rs``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from bootc.errors import Error
from bootc.formats.digest import OciDigest
from bootc.formats.tar import Entry, EntryKind
from bootc.formats.tree import (
    MAX_DEPTH,
    BlockDevice,
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Stat,
    Symlink,
)
from bootc.oci.budget import Budget, OverBudget
from bootc.oci.layer_doubts import LayerDoubts
from bootc.oci.resolve import Resolver, Unresolvable, nothing_made
from bootc.printable import shown

_log = logging.getLogger(__name__)

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_MAX_NAME_BYTES = 255
_IMPLICIT_MODE = 0o755
#: Warnings of one kind for one layer.
_MAX_HIDDEN = 5


class FlattenError(Error):
    """An entry of a layer that cannot be part of a file system."""

    def __init__(self, what: str, entry: Entry, layer: OciDigest) -> None:
        super().__init__(f"layer {layer}: entry {shown(entry.path)}: {what}")


def apply_layer(
    root: Directory,
    layer: OciDigest,
    entries: Iterable[tuple[Entry, Inline | External]],
    doubts: LayerDoubts | None = None,
    budget: Budget | None = None,
) -> None:
    """Apply one layer to the tree below ``root``. Apply the layers in order, lowest first.

    Args:
        root: The tree of the layers below, changed in place.
        layer: The ``diff_id`` of the layer, for messages.
        entries: The entries of the layer, each with the content of a regular file.
        doubts: Receives what other programs do differently.
        budget: Counts the entries of the layers of one image.

    Raises:
        FlattenError: an entry cannot be applied, or is one too many.
    """
    if doubts is not None:
        doubts.begin_layer()
    budget = Budget() if budget is None else budget
    applied = _Layer(root, doubts, budget)
    for entry, content in entries:
        try:
            budget.entry(entry, content)
            applied.apply(entry, content)
        except (OverBudget, Unresolvable, _Refused) as exc:
            raise FlattenError(str(exc), entry, layer) from None
    for path, target in applied.hidden.items():
        _log.warning(
            "layer %s: the directory %s replaces a symbolic link to %s, whose content "
            "is not there any more under the old name",
            *(layer, shown(path), shown(target)),
        )


class _Refused(Exception):
    """An entry that cannot be applied. The text completes a sentence about it."""


class _Layer:
    """One layer, while it is applied."""

    def __init__(self, root: Directory, doubts: LayerDoubts | None, budget: Budget) -> None:
        self._root = root
        self._budget = budget
        self._doubts = doubts
        self._resolver = Resolver(root)
        #: The first directories in place of symlinks to directories, with the targets of these.
        self.hidden: dict[bytes, bytes] = {}

    def apply(self, entry: Entry, content: Inline | External) -> None:
        parts = _components(entry.path)
        if not parts:
            if entry.kind is not EntryKind.DIRECTORY:
                raise _Refused("the root must be a directory")
            self._root.stat = stat_of(entry)
        elif parts[-1].startswith(_WHITEOUT):
            self._white_out(parts)
        else:
            self._put(parts, entry, content)

    def _put(self, parts: list[bytes], entry: Entry, content: Inline | External) -> None:
        name = parts[-1]
        if len(name) > _MAX_NAME_BYTES:
            raise _Refused("name too long")
        target = self._link_target(entry) if entry.kind is EntryKind.HARDLINK else None
        parent, path = self._parent(parts)
        siblings = parent.entries
        if target is not None:
            siblings[name] = target
            if self._doubts is not None:
                self._doubts.link(path, target)
            return
        present = siblings.get(name)
        if entry.kind is not EntryKind.DIRECTORY:
            leaf = siblings[name] = Leaf(stat_of(entry), content_of(entry, content))
            if self._doubts is not None:
                self._doubts.put(path, present, leaf)
        elif isinstance(present, Directory):
            present.stat = stat_of(entry)
        else:
            if present is not None and isinstance(present.content, Symlink):
                self._replace_link(parts, path, present.content)
            siblings[name] = Directory(stat_of(entry))

    def _replace_link(self, parts: list[bytes], path: bytes, link: Symlink) -> None:
        """Note a directory in the place of a symlink to one: what was there is not any more."""
        try:
            found = self._resolver.directory(parts, nothing_made)
        except Unresolvable:
            return
        if found is not None and found[0].entries and len(self.hidden) < _MAX_HIDDEN:
            self.hidden[path] = link.target

    def _parent(self, parts: list[bytes]) -> tuple[Directory, bytes]:
        """Return the parent directory of an entry, and the path of the entry without symlinks.

        Directories that no layer lists are made.
        """
        found = self._resolver.directory(parts[:-1], self._make)
        # ``_make`` makes all of them.
        assert found is not None
        directory, names, through_link = found
        if len(names) >= MAX_DEPTH:
            raise _Refused(f"it is deeper than {MAX_DEPTH} directories")
        path = b"/".join((*names, parts[-1]))
        if through_link and self._doubts is not None:
            self._doubts.follow(b"/".join(parts), path)
        return directory, path

    def _make(self, parent: Directory, path: list[bytes]) -> Directory:
        name = path[-1]
        if name.startswith(_WHITEOUT) or len(name) > _MAX_NAME_BYTES:
            raise _Refused("bad name of a directory")
        self._budget.implicit()
        made = parent.entries[name] = Directory(Stat(mode=_IMPLICIT_MODE))
        if self._doubts is not None:
            self._doubts.made(b"/".join(path))
        return made

    def _link_target(self, entry: Entry) -> Leaf:
        parts = _components(entry.link_target)
        node: Directory | Leaf | None = self._root
        if parts:
            try:
                found = self._resolver.directory(parts[:-1], nothing_made)
            except Unresolvable:
                found = None
            node = None if found is None else found[0].entries.get(parts[-1])
        if not isinstance(node, Leaf):
            what = "is a directory" if node else "does not exist"
            target = entry.link_target.decode("utf-8", "backslashreplace")
            raise _Refused(f"the target of the hard link, {target!r}, {what}")
        return node

    def _white_out(self, parts: list[bytes]) -> None:
        """Remove the entry that a whiteout hides, if it exists."""
        try:
            found = self._resolver.directory(parts[:-1], nothing_made)
        except Unresolvable:
            # There is nothing to hide below a file.
            return
        if found is None:
            return
        parent = found[0]
        if parts[-1] == _OPAQUE:
            # Entries that this layer listed before the marker are removed too, as in composefs-rs.
            parent.entries.clear()
            return
        hidden = parts[-1].removeprefix(_WHITEOUT)
        if hidden in (b"", b".", b".."):
            raise _Refused("a whiteout of nothing")
        parent.entries.pop(hidden, None)


def content_of(entry: Entry, content: Inline | External) -> Content:
    """Return the content of the leaf that an entry becomes; ``content`` is for a regular file."""
    match entry.kind:
        case EntryKind.SYMLINK:
            return Symlink(entry.link_target)
        case EntryKind.CHAR_DEVICE:
            return CharDevice(entry.rdev)
        case EntryKind.BLOCK_DEVICE:
            return BlockDevice(entry.rdev)
        case EntryKind.FIFO:
            return Fifo()
        case _:
            return content


def stat_of(entry: Entry) -> Stat:
    """Return the metadata of the node that an entry becomes."""
    return Stat(entry.mode, entry.uid, entry.gid, entry.mtime_s, entry.mtime_ns, dict(entry.xattrs))


def _components(path: bytes) -> list[bytes]:
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise _Refused("its path leads upwards")
    return parts
