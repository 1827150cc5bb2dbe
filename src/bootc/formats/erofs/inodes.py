"""From a tree to the numbered inodes of an epoch 1 image.

What composefs adds to a tree happens here: where overlayfs finds the content of a
file, how a user's own whiteouts and ``trusted.overlay.*`` names are kept apart from
overlayfs's, and the 256 stubs of the root. The tree itself is not changed.

Where the two implementations of the format disagree, these rules hold (first named
wins): a hard-linked inode lives where a depth-first walk meets it first (composefs-rs);
marks a user's tree already has are replaced, not doubled (C); a user's whiteout in the
root is one even if it is named like a stub (C); hard-linked whiteouts are refused
(composefs-rs); a file with a digest and no content is still looked up (composefs-rs).
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import assert_never

from bootc.errors import Error
from bootc.formats.digest import Algorithm
from bootc.formats.erofs.structs import (
    MAX_DEPTH,
    MAX_NAME_BYTES,
    MAX_SYMLINK_BYTES,
    METACOPY,
    NULL_CHUNK,
    OPAQUE,
    OPAQUE_MARKS,
    OVERLAY,
    OVERLAY_ESCAPED,
    REDIRECT,
    STUB_NAMES,
    WHITEOUT_MARKS,
    WHITEOUTS_MARKS,
    chunk_count,
)
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
    Sparse,
    Stat,
    Symlink,
    Unverified,
)

_MAX_U32 = 0xFFFFFFFF
#: What the count fields of an inode's xattrs can express.
_MAX_XATTRS = 255
_MAX_XATTR_AREA = 4 * 0xFFFE
_MAX_XATTR_VALUE = 0xFFFF
_XATTR_ENTRY_COST = 4 + 3
#: Larger files would need more chunk indexes than the C tools write.
_MAX_CHUNKS = 1024

_METACOPY_HEADER = {
    algorithm: bytes([0, 4 + algorithm.digest_size, 0, algorithm.value]) for algorithm in Algorithm
}

Xattrs = tuple[tuple[bytes, bytes], ...]


class Unrepresentable(Error):
    """The tree holds something the image format has no room for."""


@dataclass(slots=True, eq=False)
class Inode:
    """One inode as it will stand in the image; ``layout`` fills the second part."""

    #: Type and permissions.
    mode: int
    uid: int
    gid: int
    #: In nanoseconds, of the seconds as stored: modulo 2**64, so that years before 1970 come last.
    mtime_ns: int
    nlink: int
    #: Sorted by name.
    xattrs: Xattrs
    #: File size; that of a directory is known only once it is laid out.
    size: int = 0
    rdev: int = 0
    #: Bytes stored in the image: small files, link targets, chunk indexes.
    data: bytes = b""
    chunked: bool = False
    #: Of a directory: everything in it, ``.`` and ``..`` included, sorted by name.
    entries: Sequence[tuple[bytes, Inode]] = ()

    compact: bool = False
    xattr_bytes: int = 0
    position: int = 0
    #: Whole blocks in the data area, and what follows the inode directly.
    blocks: int = 0
    tail_bytes: int = 0
    first_block: int = 0
    #: Of a directory: index of the first entry of each block (or tail) but the first.
    cuts: Sequence[int] = ()


class _LimitError(Exception):
    """Why one inode cannot be stored; the caller knows its path."""


@dataclass(slots=True)
class _Survey:
    """What must be known about the whole tree before the first inode is numbered."""

    paths: dict[int, bytes] = field(default_factory=dict)
    children: dict[int, list[tuple[bytes, Node]]] = field(default_factory=dict)
    #: The directory in which a leaf is numbered.
    homes: dict[int, Directory] = field(default_factory=dict)
    #: Link counts above one.
    links: dict[int, int] = field(default_factory=dict)
    #: Directories that hold a user's whiteout.
    whiteout_parents: set[int] = field(default_factory=set)


def inodes_of(root: Directory, version: int) -> list[Inode]:
    """Return the inodes of an image in the order of their numbers: breadth first.

    Raises:
        Unrepresentable: a name, an xattr, a number or the shape of the tree cannot be stored.
    """
    survey = _survey(root)
    stubs = _add_stubs(root, survey)
    inodes: list[Inode] = []
    by_node: dict[int, Inode] = {}

    def number(node: Node, path: bytes, name: bytes) -> Inode:
        try:
            if isinstance(node, Directory):
                inode = _directory_inode(node, survey, version, is_root=node is root)
            else:
                inode = _leaf_inode(node, survey.links.get(id(node), 1), is_stub=id(node) in stubs)
        except _LimitError as exc:
            raise Unrepresentable(f"{_show(path + b'/' + name)}: {exc}") from None
        inodes.append(inode)
        by_node[id(node)] = inode
        return inode

    top = number(root, b"", b"")
    queue = [(root, top, top)]
    for directory, _, _ in queue:
        path = survey.paths[id(directory)]
        for name, node in survey.children[id(directory)]:
            if isinstance(node, Directory):
                queue.append((node, number(node, path, name), by_node[id(directory)]))
            elif survey.homes[id(node)] is directory and id(node) not in by_node:
                number(node, path, name)
    for directory, inode, parent in queue:
        entries = [(name, by_node[id(node)]) for name, node in survey.children[id(directory)]]
        entries += [(b".", inode), (b"..", parent)]
        entries.sort(key=itemgetter(0))
        inode.entries = entries
    return inodes


def _survey(root: Directory) -> _Survey:
    """Walk depth first, names bytewise, checking names and shape."""
    survey = _Survey()
    stack = [_enter(root, b"", survey)]
    while stack:
        directory, entries = stack[-1]
        for name, node in entries:
            if not 0 < len(name) <= MAX_NAME_BYTES or name in (b".", b"..") or _breaks(name):
                where = _show(survey.paths[id(directory)] + b"/")
                raise Unrepresentable(f"{where}: impossible file name {_show(name[:300])}")
            if isinstance(node, Directory):
                path = survey.paths[id(directory)] + b"/" + name
                if len(stack) + 1 >= MAX_DEPTH:
                    raise Unrepresentable(f"directories nested deeper than {MAX_DEPTH}")
                stack.append(_enter(node, path, survey))
                break
            _count(node, name, directory, survey)
        else:
            stack.pop()
    return survey


def _enter(
    directory: Directory, path: bytes, survey: _Survey
) -> tuple[Directory, Iterator[tuple[bytes, Node]]]:
    if id(directory) in survey.paths:
        raise Unrepresentable(f"{_show(path)}: the same directory appears twice in the tree")
    children = directory.sorted_entries()
    survey.paths[id(directory)] = path
    survey.children[id(directory)] = children
    return directory, iter(children)


def _count(leaf: Leaf, name: bytes, parent: Directory, survey: _Survey) -> None:
    """Note one name of a leaf."""
    key = id(leaf)
    first = key not in survey.homes
    if first:
        survey.homes[key] = parent
    else:
        survey.links[key] = survey.links.get(key, 1) + 1
    if isinstance(leaf.content, CharDevice) and leaf.content.rdev == 0:
        if not first:
            where = _show(survey.paths[id(parent)] + b"/" + name)
            raise Unrepresentable(f"{where}: a whiteout (device 0:0) cannot be a hard link")
        survey.whiteout_parents.add(id(parent))


def _add_stubs(root: Directory, survey: _Survey) -> set[int]:
    """Put the missing stubs among the children of the root; return their identities."""
    xattrs = {k: v for k, v in root.stat.xattrs.items() if k == b"security.selinux"}
    stat_of_root = root.stat
    stubs = {
        name: Leaf(
            Stat(
                0o644,
                stat_of_root.uid,
                stat_of_root.gid,
                stat_of_root.mtime_s,
                stat_of_root.mtime_ns,
                xattrs,
            ),
            CharDevice(0),
        )
        for name in STUB_NAMES
        if name not in root.entries
    }
    children = survey.children[id(root)]
    children += stubs.items()
    children.sort(key=itemgetter(0))
    survey.homes.update((id(stub), root) for stub in stubs.values())
    return {id(stub) for stub in stubs.values()}


def _directory_inode(
    directory: Directory, survey: _Survey, version: int, *, is_root: bool
) -> Inode:
    added: dict[bytes, bytes] = {}
    if id(directory) in survey.whiteout_parents:
        added.update(dict.fromkeys(WHITEOUTS_MARKS, b""))
        if version >= 1:
            added.update(dict.fromkeys(OPAQUE_MARKS, b"x"))
    if is_root:
        added[OPAQUE] = b"y"
    subdirectories = sum(isinstance(node, Directory) for _, node in survey.children[id(directory)])
    return _inode(stat.S_IFDIR, directory.stat, 2 + subdirectories, added)


def _leaf_inode(leaf: Leaf, nlink: int, *, is_stub: bool) -> Inode:
    content = leaf.content
    if isinstance(content, CharDevice) and content.rdev == 0 and not is_stub:
        return _inode(stat.S_IFREG, leaf.stat, nlink, dict.fromkeys(WHITEOUT_MARKS, b""))
    file_type, added = _overlay_facts(content)
    inode = _inode(file_type, leaf.stat, nlink, added)
    match content:
        case External() | Unverified() | Sparse():
            chunks = chunk_count(content.size_bytes)
            if content.size_bytes < 0 or chunks > _MAX_CHUNKS:
                raise _LimitError(f"file size {content.size_bytes} is out of range")
            inode.size = content.size_bytes
            inode.chunked = True
            inode.data = NULL_CHUNK * chunks
        case Inline():
            inode.size = len(content.data)
            inode.data = content.data
        case Symlink():
            if not 0 < len(content.target) <= MAX_SYMLINK_BYTES or b"\0" in content.target:
                raise _LimitError(f"impossible link target of {len(content.target)} bytes")
            inode.size = len(content.target)
            inode.data = content.target
        case CharDevice() | BlockDevice():
            if not 0 <= content.rdev <= _MAX_U32:
                raise _LimitError(f"device number {content.rdev} does not fit 32 bits")
            inode.rdev = content.rdev
        case Fifo() | Socket():
            pass
        case _:
            assert_never(content)
    return inode


def _overlay_facts(content: Content) -> tuple[int, dict[bytes, bytes]]:
    """Return the file type, and the xattrs by which overlayfs finds the content."""
    match content:
        case External():
            path = b"/" + content.digest.object_path.encode()
            header = _METACOPY_HEADER[content.digest.algorithm]
            return stat.S_IFREG, {METACOPY: header + content.digest.raw, REDIRECT: path}
        case Unverified():
            return stat.S_IFREG, {METACOPY: b"", REDIRECT: b"/" + content.path}
        case Sparse():
            return stat.S_IFREG, {METACOPY: b""}
        case Inline():
            return stat.S_IFREG, {}
        case Symlink():
            return stat.S_IFLNK, {}
        case CharDevice():
            return stat.S_IFCHR, {}
        case BlockDevice():
            return stat.S_IFBLK, {}
        case Fifo():
            return stat.S_IFIFO, {}
        case Socket():
            return stat.S_IFSOCK, {}
        case _:
            assert_never(content)


def _inode(file_type: int, meta: Stat, nlink: int, added: dict[bytes, bytes]) -> Inode:
    if not (0 <= meta.uid <= _MAX_U32 and 0 <= meta.gid <= _MAX_U32):
        raise _LimitError(f"owner {meta.uid}:{meta.gid} does not fit 32 bits")
    if not (-(1 << 63) <= meta.mtime_s < 1 << 63 and 0 <= meta.mtime_ns < 10**9):
        raise _LimitError(f"mtime {meta.mtime_s} s {meta.mtime_ns} ns is out of range")
    return Inode(
        mode=file_type | meta.mode & 0o7777,
        uid=meta.uid,
        gid=meta.gid,
        mtime_ns=meta.mtime_s % (1 << 64) * 10**9 + meta.mtime_ns,
        nlink=nlink,
        xattrs=_xattrs(meta.xattrs, added) if meta.xattrs or added else (),
    )


def _xattrs(own: dict[bytes, bytes], added: dict[bytes, bytes]) -> Xattrs:
    """Escape the tree's own xattrs, add composefs's, check and sort."""
    escaped = {
        OVERLAY_ESCAPED + name[len(OVERLAY) :] if name.startswith(OVERLAY) else name: value
        for name, value in own.items()
    }
    escaped.update(added)
    area = 0
    for name, value in escaped.items():
        if not 0 < len(name) <= MAX_NAME_BYTES or b"\0" in name:
            raise _LimitError(f"impossible xattr name {_show(name[:300])}")
        if len(value) > _MAX_XATTR_VALUE:
            raise _LimitError(f"xattr {_show(name)} has a value of {len(value)} bytes")
        area += _XATTR_ENTRY_COST + len(name) + len(value)
    if len(escaped) > _MAX_XATTRS or area > _MAX_XATTR_AREA:
        raise _LimitError(f"{len(escaped)} xattrs of together {area} bytes are too many")
    return tuple(sorted(escaped.items()))


def _breaks(name: bytes) -> bool:
    return b"/" in name or b"\0" in name


def _show(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace") or "/"
