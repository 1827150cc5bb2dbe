"""The root of an image as a tar archive: the same bytes for the same root.

- Entries are in bytewise order of their names. Owners are numbers.
- Of the extended attributes, the archive keeps those that belong to the files (capabilities,
  ACLs, ``user.``), as ``SCHILY.xattr`` records of pax.
- SELinux labels are those of the image's own policy, not of the machine that unpacks the archive.
- Times are kept to the nanosecond. Hard links are links.
- An archive cannot hold sockets; they are left out.

The root directory itself has no entry: the program that unpacks the archive has made one.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Mapping
from typing import BinaryIO, Protocol

from bootc.errors import Error
from bootc.formats.digest import Digest
from bootc.formats.tar import EntryKind
from bootc.formats.tarheader import RECORD_BYTES, TRAILER, Member, padding, tar_header
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Node,
    Socket,
    Stat,
    Symlink,
)
from bootc.oci.selabel import ReadContent, find_policy, label_tree
from bootc.printable import printable, shown

_log = logging.getLogger(__name__)

_KEPT = (b"security.capability", b"system.posix_acl_", b"user.")
#: Attributes in which overlayfs keeps facts about its own layers.
_OVERLAY = b"user.overlay."
_CHUNK_BYTES = 1 << 20


class Writable(Protocol):
    """Takes the archive."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""


class ExportError(Error):
    """The tree cannot be exported as asked."""


def exported_tree(
    root: Directory, read_content: ReadContent, *, labels: bool, copies: Mapping[str, str]
) -> Directory:
    """Return the tree to write.

    Args:
        root: The tree of the image. The function changes it.
        read_content: Returns the content of a regular file.
        labels: Give the files the labels of the image's policy, if it selects one.
        copies: The second place of files, each with the path of the file.

    Raises:
        ExportError: a file does not exist, or its second place is taken.
        LabelError, FileContextsError: the policy cannot be used.
    """
    for target, source in copies.items():
        _copy(root, target, source)
    for _, node in root.walk():
        present = node.stat.xattrs
        if present:
            node.stat.xattrs = {k: v for k, v in present.items() if _keeps(k)}
    policy = find_policy(root, read_content) if labels else None
    return root if policy is None else label_tree(root, policy)


def write_tar(root: Directory, open_content: Callable[[Digest], int], out: Writable) -> None:
    """Write a tree as an archive.

    Args:
        root: The tree.
        open_content: Returns a descriptor of the content of a file.
        out: Receives the archive.

    Raises:
        ExportError: a file ends before its size.
        OSError: reading or writing failed.
    """
    first: dict[int, bytes] = {}
    written = 0
    for path, node in root.walk():
        if path == b"/":
            continue
        if isinstance(node, Leaf) and isinstance(node.content, Socket):
            _log.warning("no archive can hold the socket %s", shown(path))
            continue
        known = first.setdefault(id(node), path)
        link = None if known == path else known[1:]
        member = _member(path, node, link)
        header = tar_header(member)
        out.write(header)
        written += len(header)
        if member.size_bytes and isinstance(node, Leaf):
            _write_content(path, node.content, open_content, out)
            out.write(padding(member.size_bytes))
            written += member.size_bytes + len(padding(member.size_bytes))
    out.write(TRAILER + bytes(-(written + len(TRAILER)) % RECORD_BYTES))


def _member(path: bytes, node: Node, link: bytes | None) -> Member:
    kind, size_bytes, target, rdev = EntryKind.DIRECTORY, 0, b"", 0
    if link is not None:
        kind, target = EntryKind.HARDLINK, link
    elif isinstance(node, Leaf):
        match node.content:
            case Inline() | External():
                kind, size_bytes = EntryKind.FILE, node.content.size_bytes
            case Symlink():
                kind, target = EntryKind.SYMLINK, node.content.target
            case CharDevice():
                kind, rdev = EntryKind.CHAR_DEVICE, node.content.rdev
            case BlockDevice():
                kind, rdev = EntryKind.BLOCK_DEVICE, node.content.rdev
            case Fifo():
                kind = EntryKind.FIFO
            case other:
                raise ExportError(f"{printable(path)} has no content: {other!r}")
    stat = node.stat
    return Member(
        path[1:],
        kind,
        stat.mode,
        stat.uid,
        stat.gid,
        stat.mtime_s,
        stat.mtime_ns,
        size_bytes,
        target,
        rdev,
        {} if link is not None else stat.xattrs,
    )


def _write_content(
    path: bytes, content: Content, open_content: Callable[[Digest], int], out: Writable
) -> None:
    assert isinstance(content, Inline | External), "nothing else has a size"
    left = content.size_bytes
    with _opened(content, open_content) as file:
        while left:
            piece = file.read(min(left, _CHUNK_BYTES))
            if not piece:
                raise ExportError(f"{printable(path)} changed while it was read")
            out.write(piece)
            left -= len(piece)


def _opened(content: Inline | External, open_content: Callable[[Digest], int]) -> BinaryIO:
    if isinstance(content, Inline):
        return io.BytesIO(content.data)
    return open(open_content(content.digest), "rb")


def _copy(root: Directory, target: str, source: str) -> None:
    """Copy a file to a second place. A link would not do: /boot may be another file system."""
    node = root.lookup(os.fsencode(source))
    if not isinstance(node, Leaf) or not isinstance(node.content, Inline | External):
        raise ExportError(f"{printable(source)} is not a regular file")
    directory = root
    *above, name = target.split("/")
    for part in above:
        new = Directory(Stat(0o755, mtime_s=node.stat.mtime_s))
        below = directory.entries.setdefault(part.encode(), new)
        if not isinstance(below, Directory):
            raise ExportError(f"/{printable(part)} is not a directory")
        directory = below
    if os.fsencode(name) in directory.entries:
        raise ExportError(f"{printable(target)} is there already")
    directory.entries[os.fsencode(name)] = Leaf(node.stat.copy(), node.content)


def _keeps(name: bytes) -> bool:
    return name.startswith(_KEPT) and not name.startswith(_OVERLAY)
