"""Reads a real directory tree as a tree of values.

Owns: the walk. Owner, group, mode, xattrs, times to the nanosecond, hard links and
device numbers come out as the file system has them; files of up to 64 bytes are kept,
the content of larger ones streams into a sink that names it. Everything is opened
beneath the top's descriptor and no symlink is followed; mounts inside are crossed.

Promises: memory does not grow with the size of files; and what is returned was there
as one: a file or directory that changes while it is read is an error, not a digest.
Hard links are told by device and inode number alone, since some file systems
(fuse-overlayfs) report wrong link counts.

Source: composefs-rs 0.9, ``composefs/src/fs.rs``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from bootc.errors import Error
from bootc.formats.digest import Digest
from bootc.formats.tree import (
    INLINE_MAX_BYTES,
    BlockDevice,
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Socket,
    Stat,
    Symlink,
)
from bootc.fs.dir import Dir

_CHUNK_BYTES = 1 << 20
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_OPEN_DIRECTORY = _OPEN | os.O_DIRECTORY
#: A pipe that has taken a file's place must not make the open wait.
_OPEN_FILE = _OPEN | os.O_NONBLOCK | os.O_NOCTTY


class TreeChanged(Error):
    """Something was changed while the tree was read."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} changed while it was read", hint="nothing may write to the directory meanwhile"
        )


class ContentWriter(Protocol):
    """Takes the content of one file."""

    def clone(self, fd: int) -> bool:
        """Share the blocks of a file instead of any :meth:`write`; False if that cannot be."""

    def write(self, data: memoryview) -> None:
        """Append; ``data`` is not valid after the call."""

    def commit(self) -> Digest:
        """Finish, and return the content's name."""


class ContentSink(Protocol):
    """Where the content of files goes: a store, or only through the hash."""

    def writer(self) -> AbstractContextManager[ContentWriter]:
        """Start a file."""


def read_tree(top: Dir, sink: ContentSink) -> Directory:
    """Return the tree below ``top``, itself included.

    Raises:
        TreeChanged: something was changed meanwhile.
        OSError: something cannot be read; a note names it. EMFILE where directories are nested
            deeper than the process may open files.
    """
    return _Walk(sink).tree(top)


class _Level:
    """A directory on the way to where the walk is."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path
        self.info = os.fstat(fd)
        self.node = Directory(_stat(self.info, fd))
        #: Names still to be read.
        self.names = [os.fsencode(name) for name in os.listdir(fd)]


class _Walk:
    """One run of :func:`read_tree`."""

    def __init__(self, sink: ContentSink) -> None:
        self._sink = sink
        self._buffer = memoryview(bytearray(_CHUNK_BYTES))
        self._leaves: dict[tuple[int, int], Leaf] = {}

    def tree(self, top: Dir) -> Directory:
        # A list instead of recursion: names may be nested deeper than Python calls.
        levels: list[_Level] = []
        try:
            root = _enter(top.fileno(), b".", top.path)
            levels.append(root)
            while levels:
                level = levels[-1]
                if level.names:
                    below = self._entry(level, level.names.pop())
                    if below is not None:
                        levels.append(below)
                else:
                    _check_same(level.info, os.fstat(level.fd), level.path)
                    os.close(levels.pop().fd)
            return root.node
        finally:
            for level in levels:
                os.close(level.fd)

    def _entry(self, level: _Level, name: bytes) -> _Level | None:
        """Read an entry; a directory is returned, for the walk to go on in it."""
        path = f"{level.path.rstrip('/')}/{os.fsdecode(name)}"
        try:
            return self._read(level, name, path)
        except OSError as exc:
            # Not doing(), which would name the path twice in a TreeChanged.
            exc.add_note(f"Reading {path}")
            raise

    def _read(self, level: _Level, name: bytes, path: str) -> _Level | None:
        info = os.stat(name, dir_fd=level.fd, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            below = _enter(level.fd, name, path)
            level.node.entries[name] = below.node
            return below
        inode = (info.st_dev, info.st_ino)
        leaf = self._leaves.get(inode)
        if leaf is None:
            if stat.S_ISREG(info.st_mode):
                leaf = self._file(level.fd, name, info, path)
            else:
                # The xattr calls take no directory descriptor.
                target = b"/proc/self/fd/%d/%s" % (level.fd, name)
                leaf = Leaf(_stat(info, target), special_content(level.fd, name, info))
            self._leaves[inode] = leaf
        level.node.entries[name] = leaf
        return None

    def _file(self, parent: int, name: bytes, seen: os.stat_result, path: str) -> Leaf:
        fd = os.open(name, _OPEN_FILE, dir_fd=parent)
        try:
            info = os.fstat(fd)
            _check_same(seen, info, path)
            leaf = Leaf(_stat(info, fd), self._content(fd, info.st_size, path))
            _check_same(info, os.fstat(fd), path)
        finally:
            os.close(fd)
        return leaf

    def _content(self, fd: int, size: int, path: str) -> Content:
        if size <= INLINE_MAX_BYTES:
            data = b"".join(bytes(piece) for piece in self._pieces(fd, size, path))
            return Inline(data)
        with self._sink.writer() as writer:
            if not writer.clone(fd):
                for piece in self._pieces(fd, size, path):
                    writer.write(piece)
            return External(writer.commit(), size)

    def _pieces(self, fd: int, size: int, path: str) -> Iterator[memoryview]:
        """Yield what is read to the end of a file, which must come after ``size`` bytes."""
        while count := os.readv(fd, [self._buffer]):
            size -= count
            if size < 0:
                break  # it grows, perhaps for ever
            yield self._buffer[:count]
        if size:
            raise TreeChanged(path)


def _enter(parent: int, name: bytes, path: str) -> _Level:
    fd = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
    try:
        return _Level(fd, path)
    except BaseException:
        os.close(fd)
        raise


def special_content(parent: int, name: bytes, info: os.stat_result) -> Content:
    """Return what an entry is that is neither a directory nor a regular file."""
    match stat.S_IFMT(info.st_mode):
        case stat.S_IFLNK:
            return Symlink(os.readlink(name, dir_fd=parent))
        case stat.S_IFCHR:
            return CharDevice(info.st_rdev)
        case stat.S_IFBLK:
            return BlockDevice(info.st_rdev)
        case stat.S_IFIFO:
            return Fifo()
        case _:
            return Socket()


def _check_same(before: os.stat_result, after: os.stat_result, path: str) -> None:
    if _identity(before) != _identity(after):
        raise TreeChanged(path)


def _identity(info: os.stat_result) -> tuple[int, ...]:
    return info.st_dev, info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns


def _stat(info: os.stat_result, target: int | bytes) -> Stat:
    mtime_s, mtime_ns = divmod(info.st_mtime_ns, 1_000_000_000)
    mode = stat.S_IMODE(info.st_mode)
    return Stat(mode, info.st_uid, info.st_gid, mtime_s, mtime_ns, read_xattrs(target))


def read_xattrs(target: int | bytes) -> dict[bytes, bytes]:
    """Return the extended attributes of a descriptor or a path, which is not followed."""
    # Of a descriptor Python wants to hear nothing about symlinks.
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as exc:
        if exc.errno == errno.EOPNOTSUPP:
            return {}  # a network or FUSE file system that knows none
        raise
    return {os.fsencode(name): os.getxattr(target, name, follow_symlinks=follow) for name in names}
