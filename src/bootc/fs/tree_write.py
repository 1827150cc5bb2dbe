"""Writes a tree of values into a real directory; :mod:`bootc.fs.tree_read` does the reverse.

Owner, group, mode, xattrs (security labels, capabilities and ACLs among them), times, hard
links, symlinks, devices, pipes and sockets come out as the values say; whether a file is a
hard link, the tree's :class:`~bootc.formats.tree.Leaf` objects say.

Promises: everything is made beneath the target's descriptor, no symlink is followed, and
nothing that exists is written to. Until all is there only root can enter the target: a
user who will own a directory in it cannot interfere. The content of files is compared with
its digest while it is copied, and holes of files stay holes. A failure names the path and
leaves what was written.
Not promised: durability. Call ``Dir.sync`` before anything refers to the copy.

The flags of chattr(1) are a second step, :func:`protect_tree`. A file with one of them can
be neither renamed nor linked. The caller therefore renames the tree between the two steps.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from bootc.errors import Error, doing
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Directory,
    External,
    Inline,
    Leaf,
    Node,
    Sparse,
    Stat,
    Symlink,
    Unverified,
    kind_of,
)
from bootc.formats.verity import VerityHasher
from bootc.fs.atomic import write_all
from bootc.fs.descent import Descent
from bootc.fs.dir import Dir
from bootc.fs.extents import data_extents
from bootc.fs.protection import protect

#: Opens the content of a file for reading; the descriptor belongs to the caller.
OpenContent = Callable[[External], int]

_CHUNK_BYTES = 1 << 20
#: The modes of new directories and files until owner and mode are set.
_CLOSED_DIRECTORY, _CLOSED_FILE = 0o700, 0o600
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL


class ContentChanged(Error):
    """The content of a file does not match its digest in the tree."""


class ContentUnknown(Error):
    """The tree has no digest of the content of a file."""


def write_tree(tree: Directory, target: Dir, open_content: OpenContent) -> None:
    """Make ``target``, which must be empty, the top of ``tree``.

    Args:
        tree: The tree.
        target: The empty directory, which gets the metadata of the tree's top.
        open_content: Opens the content of files whose content is not in the tree.

    Raises:
        ContentChanged: opened content does not match its digest.
        ContentUnknown: the tree has no digest of a file.
        OSError: opening or writing failed; a note names the path. EEXIST if ``target`` was not
            empty.
    """
    os.fchmod(target.fileno(), _CLOSED_DIRECTORY)
    with Descent(target.fileno(), target.path) as way:
        _Writer(way, target, open_content).write(tree)


def protect_tree(tree: Directory, target: Dir) -> None:
    """Set the flags of chattr(1) of a tree on the files that :func:`write_tree` has written.

    Raises:
        OSError: a flag cannot be set; a note names the path.
    """
    for path, node in tree.walk():
        if not node.stat.protection:
            continue
        name = os.fsdecode(path[1:]) or "."
        with doing(f"Protecting {name!r}"):
            fd = target.open_file(name, os.O_RDONLY | os.O_NONBLOCK)
            try:
                protect(fd, node.stat.protection)
            finally:
                os.close(fd)


class _Level:
    """A directory on the way to the current one."""

    def __init__(self, node: Directory, path: bytes) -> None:
        self.node = node
        self.path = path
        self.pending: Iterator[tuple[bytes, Node]] = iter(node.sorted_entries())


class _Writer:
    """One run of :func:`write_tree`."""

    def __init__(self, way: Descent, target: Dir, open_content: OpenContent) -> None:
        self._way = way
        self._target = target
        self._open_content = open_content
        #: The path of the first name of each file.
        self._first_names: dict[int, bytes] = {}

    def write(self, tree: Directory) -> None:
        # A list instead of recursion: names may be nested deeper than Python calls.
        levels = [_Level(tree, b"")]
        while levels:
            level = levels[-1]
            entry = next(level.pending, None)
            if entry is not None:
                below = self._entry(level, *entry)
                if below is not None:
                    levels.append(below)
                continue
            # Last, because each new entry changes the time of the directory, and would inherit
            # its default ACL.
            with doing(_writing(level.path or b".")):
                _set_metadata(self._way.fileno(), level.node.stat, symlink=False)
            levels.pop()
            if levels:
                self._way.leave()

    def _entry(self, level: _Level, name: bytes, node: Node) -> _Level | None:
        """Make an entry. Return a directory, in which the writing continues; else None."""
        path = level.path + b"/" + name if level.path else name
        with doing(_writing(path)), Dir(os.dup(self._way.fileno()), self._way.path()) as parent:
            if isinstance(node, Directory):
                parent.mkdir(os.fsdecode(name), _CLOSED_DIRECTORY)
                self._way.enter(os.fsdecode(name))
                return _Level(node, path)
            first = self._first_names.setdefault(id(node), path)
            if first != path:
                os.link(
                    first,
                    name,
                    src_dir_fd=self._target.fileno(),
                    dst_dir_fd=parent.fileno(),
                    follow_symlinks=False,
                )
            else:
                self._leaf(parent, name, node, path)
        return None

    def _leaf(self, parent: Dir, name: bytes, node: Leaf, path: bytes) -> None:
        content = node.content
        if isinstance(content, Inline | External | Sparse | Unverified):
            fd = parent.open_file(os.fsdecode(name), _CREATE, _CLOSED_FILE)
            try:
                self._content(fd, content, path)
                _set_metadata(fd, node.stat, symlink=False)
            finally:
                os.close(fd)
            return
        if isinstance(content, Symlink):
            parent.symlink(os.fsdecode(content.target), os.fsdecode(name))
        else:
            rdev = content.rdev if isinstance(content, CharDevice | BlockDevice) else 0
            mode = kind_of(content).mode_bits | _CLOSED_FILE
            os.mknod(name, mode, rdev, dir_fd=parent.fileno())
        # The xattr calls take no directory descriptor.
        made = b"/proc/self/fd/%d/%s" % (parent.fileno(), name)
        _set_metadata(made, node.stat, symlink=isinstance(content, Symlink))

    def _content(
        self, fd: int, content: Inline | External | Sparse | Unverified, path: bytes
    ) -> None:
        match content:
            case Inline(data):
                write_all(fd, data)
            case External():
                source = self._open_content(content)
                try:
                    _copy_verified(source, fd, content, path)
                finally:
                    os.close(source)
            case Sparse(size_bytes):
                os.ftruncate(fd, size_bytes)
            case Unverified():
                raise ContentUnknown(
                    f"the content of {os.fsdecode(path)!r} cannot be checked: "
                    "the image holds no digest of it"
                )


def _copy_verified(source: int, target: int, content: External, path: bytes) -> None:
    hasher = VerityHasher(content.digest.algorithm)
    # Read no more than expected: another process may append without end.
    info = os.fstat(source)
    if info.st_size == content.size_bytes:
        for start, end in data_extents(source, info):
            hasher.update_zeros(start - hasher.size_bytes)
            os.lseek(source, start, os.SEEK_SET)
            os.lseek(target, start, os.SEEK_SET)
            rest = end - start
            while rest and (piece := os.read(source, min(_CHUNK_BYTES, rest))):
                hasher.update(piece)
                write_all(target, piece)
                rest -= len(piece)
        hasher.update_zeros(content.size_bytes - hasher.size_bytes)
        os.ftruncate(target, content.size_bytes)
    if hasher.digest() != content.digest or os.fstat(source).st_size != content.size_bytes:
        raise ContentChanged(
            f"{os.fsdecode(path)!r} no longer has the content it had",
            hint="it was changed meanwhile or is damaged: repeat the command",
        )


def _set_metadata(made: int | bytes, meta: Stat, *, symlink: bool) -> None:
    # The order matters: chown clears the set-id bits and the capability, and each of these calls
    # changes the times. Python refuses follow_symlinks=False for a descriptor.
    follow = isinstance(made, int)
    os.chown(made, meta.uid, meta.gid, follow_symlinks=follow)
    if not symlink:
        os.chmod(made, meta.mode)
    for name, value in meta.xattrs.items():
        with doing(f"Setting the extended attribute {os.fsdecode(name)}"):
            os.setxattr(made, name, value, follow_symlinks=follow)
    times = meta.mtime_s * 1_000_000_000 + meta.mtime_ns
    os.utime(made, ns=(times, times), follow_symlinks=follow)


def _writing(path: bytes) -> str:
    return f"Writing {os.fsdecode(path)!r}"
