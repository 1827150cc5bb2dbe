"""The layers of an image, applied to one tree.

The module has the rules by which the entries of layers make a file system: order, replacement,
whiteouts, opaque directories, hard links. For an image that composefs-rs accepts, the tree is the
same as there, so image ids agree. An entry whose path leads upwards (``..``) is refused. Every
refusal names the layer and the entry.

One difference concerns images that composefs-rs refuses but container engines accept: if no layer
lists a parent directory, it is made with mode 0755, owner root and mtime 0.

Sources: OCI image specification 1.1, "Image Layer Filesystem Changeset";
composefs-rs 0.9, ``composefs-oci/src/image.rs``.
"""

from __future__ import annotations

from collections.abc import Iterable

from bootc.errors import Error
from bootc.formats.digest import OciDigest
from bootc.formats.tar import Entry, EntryKind
from bootc.formats.tree import (
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
from bootc.oci.layer_doubts import LayerDoubts
from bootc.printable import shown

_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_MAX_NAME_BYTES = 255
_IMPLICIT_MODE = 0o755


class FlattenError(Error):
    """An entry of a layer that cannot be part of a file system."""

    def __init__(self, what: str, entry: Entry, layer: OciDigest) -> None:
        super().__init__(f"layer {layer}: entry {shown(entry.path)}: {what}")


def apply_layer(
    root: Directory,
    layer: OciDigest,
    entries: Iterable[tuple[Entry, Inline | External]],
    doubts: LayerDoubts | None = None,
) -> None:
    """Apply one layer to the tree below ``root``. Apply the layers in order, lowest first.

    Args:
        root: The tree of the layers below, changed in place.
        layer: The ``diff_id`` of the layer, for messages.
        entries: The entries of the layer, each with the content of a regular file.
        doubts: Receives what other programs do differently.

    Raises:
        FlattenError: an entry cannot be applied.
    """
    if doubts is not None:
        doubts.begin_layer()
    for entry, content in entries:
        parts = _components(entry.path, entry, layer)
        if not parts:
            if entry.kind is not EntryKind.DIRECTORY:
                raise FlattenError("the root must be a directory", entry, layer)
            root.stat = stat_of(entry)
        elif parts[-1].startswith(_WHITEOUT):
            _white_out(root, parts, entry, layer)
        else:
            _put(root, parts, entry, content, layer, doubts)


def _put(
    root: Directory,
    parts: list[bytes],
    entry: Entry,
    content: Inline | External,
    layer: OciDigest,
    doubts: LayerDoubts | None,
) -> None:
    if len(parts[-1]) > _MAX_NAME_BYTES:
        raise FlattenError("name too long", entry, layer)
    if entry.kind is EntryKind.SPARSE:
        # composefs-rs refuses them too. No tool that makes layers writes them.
        raise FlattenError("a sparse file: make the layer without tar's --sparse", entry, layer)
    if entry.kind is EntryKind.HARDLINK:
        node = _link_target(root, entry, layer)
        _parent(root, parts, entry, layer, doubts).entries[parts[-1]] = node
        if doubts is not None:
            doubts.link(b"/".join(parts), node)
        return
    siblings = _parent(root, parts, entry, layer, doubts).entries
    present = siblings.get(parts[-1])
    if entry.kind is not EntryKind.DIRECTORY:
        leaf = siblings[parts[-1]] = Leaf(stat_of(entry), content_of(entry, content))
        if doubts is not None:
            doubts.put(b"/".join(parts), present, leaf)
    elif isinstance(present, Directory):
        present.stat = stat_of(entry)
    else:
        siblings[parts[-1]] = Directory(stat_of(entry))


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


def _link_target(root: Directory, entry: Entry, layer: OciDigest) -> Leaf:
    node = root.lookup(b"/".join(_components(entry.link_target, entry, layer)))
    if not isinstance(node, Leaf):
        what = "is a directory" if node else "does not exist"
        target = entry.link_target.decode("utf-8", "backslashreplace")
        raise FlattenError(f"the target of the hard link, {target!r}, {what}", entry, layer)
    return node


def _white_out(root: Directory, parts: list[bytes], entry: Entry, layer: OciDigest) -> None:
    """Remove the entry that a whiteout hides, if it exists."""
    parent = root.lookup(b"/".join(parts[:-1]))
    if not isinstance(parent, Directory):
        return
    if parts[-1] == _OPAQUE:
        # Entries that this layer listed before the marker are removed too, as in composefs-rs.
        parent.entries.clear()
        return
    hidden = parts[-1].removeprefix(_WHITEOUT)
    if hidden in (b"", b".", b".."):
        raise FlattenError("a whiteout of nothing", entry, layer)
    parent.entries.pop(hidden, None)


def _parent(
    root: Directory,
    parts: list[bytes],
    entry: Entry,
    layer: OciDigest,
    doubts: LayerDoubts | None,
) -> Directory:
    """Return the parent directory of an entry; make directories that no layer lists."""
    directory = root
    for depth, name in enumerate(parts[:-1], 1):
        node = directory.entries.get(name)
        if node is None:
            if name.startswith(_WHITEOUT) or len(name) > _MAX_NAME_BYTES:
                raise FlattenError("bad name of a directory", entry, layer)
            node = directory.entries[name] = Directory(Stat(mode=_IMPLICIT_MODE))
            if doubts is not None:
                doubts.made(b"/".join(parts[:depth]))
        if not isinstance(node, Directory):
            raise FlattenError("its parent is not a directory", entry, layer)
        directory = node
    return directory


def _components(path: bytes, entry: Entry, layer: OciDigest) -> list[bytes]:
    parts = [part for part in path.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise FlattenError("its path leads upwards", entry, layer)
    return parts
