"""Reads a real directory tree as a tree of values.

Owner, group, mode, xattrs, the flags of chattr(1) that protect, times to
the nanosecond, hard links and device numbers come out as the file system has them; files
of up to 64 bytes are kept, the content of larger ones streams into a sink that names it.
Everything is opened beneath the top's descriptor and no symlink is followed; mounts inside
are crossed.

Promises: memory does not grow with the size of files, holes of files are not read, and a
limit on the amount is checked before the reading. The tree is consistent: a file or
directory that changes while it is read is an error.
Hard links are recognised by device and inode number alone, since some file systems
(fuse-overlayfs) report wrong link counts.

Source: composefs-rs 0.9, ``composefs/src/fs.rs``.
"""

from __future__ import annotations

import errno
import os
import stat

from bootc.errors import Error
from bootc.formats.tree import (
    INLINE_MAX_BYTES,
    MAX_DEPTH,
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
from bootc.fs.content_sink import ContentSink, ContentWriter
from bootc.fs.descent import Descent
from bootc.fs.dir import Dir
from bootc.fs.extents import data_bytes, data_extents
from bootc.fs.protection import protection_of

_CHUNK_BYTES = 1 << 20
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
#: Do not wait if a FIFO has replaced the file.
_OPEN_FILE = _OPEN | os.O_NONBLOCK | os.O_NOCTTY


class TreeChanged(Error):
    """A file or directory changed while the tree was read."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} changed while it was read", hint="nothing may write to the directory meanwhile"
        )


class TreeTooLarge(Error):
    """The files of a tree have more data than the limit."""

    def __init__(self, top: str, limit_bytes: int, largest: str, largest_bytes: int) -> None:
        super().__init__(
            f"{top} holds more than {limit_bytes} bytes; "
            f"the largest file so far is {largest} with {largest_bytes}",
            hint="keep large files in /var, with a symlink to them if need be",
        )


def read_tree(top: Dir, sink: ContentSink, *, limit_bytes: int | None = None) -> Directory:
    """Return the tree below ``top``, itself included.

    Args:
        top: The directory.
        sink: Receives the content of files.
        limit_bytes: The maximum amount of data of all files together. Holes do not count.

    Raises:
        TreeChanged: a file or directory changed at the same time.
        TreeTooLarge: there is more data than ``limit_bytes``.
        OSError: something cannot be read; a note names it. ENAMETOOLONG if directories are nested
            too deeply.
    """
    with Descent(top.fileno(), top.path, max_depth=MAX_DEPTH) as way:
        return _Walk(way, sink, limit_bytes).tree()


class _Level:
    """A directory on the way to the current one."""

    def __init__(self, fd: int) -> None:
        self.info = os.fstat(fd)
        self.node = Directory(_stat(self.info, fd, fd))
        #: Names still to be read.
        self.names = os.listdir(fd)


class _Walk:
    """One run of :func:`read_tree`."""

    def __init__(self, way: Descent, sink: ContentSink, limit_bytes: int | None) -> None:
        self._way = way
        self._sink = sink
        self._buffer = memoryview(bytearray(_CHUNK_BYTES))
        self._leaves: dict[tuple[int, int], Leaf] = {}
        self._limit_bytes = limit_bytes
        self._read_bytes = 0
        #: The file with the most data so far.
        self._largest = (-1, "")

    def tree(self) -> Directory:
        # A list instead of recursion: names may be nested deeper than Python calls.
        levels = [_Level(self._way.fileno())]
        while True:
            level = levels[-1]
            if level.names:
                below = self._entry(level, level.names.pop())
                if below is not None:
                    levels.append(below)
                continue
            _check_same(level.info, os.fstat(self._way.fileno()), self._way.path())
            levels.pop()
            if not levels:
                return level.node
            self._leave()

    def _leave(self) -> None:
        try:
            self._way.leave()
        except OSError as exc:
            if exc.errno == errno.ESTALE:
                raise TreeChanged(self._way.path()) from None
            raise

    def _entry(self, level: _Level, name: str) -> _Level | None:
        """Read an entry. Return a directory, in which the walk continues; else None."""
        try:
            return self._read(level, name)
        except OSError as exc:
            # doing() would name the path twice in a TreeChanged.
            exc.add_note(f"Reading {self._way.path(name)}")
            raise

    def _read(self, level: _Level, name: str) -> _Level | None:
        parent, raw = self._way.fileno(), os.fsencode(name)
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISDIR(info.st_mode):
            below = _Level(self._way.enter(name))
            level.node.entries[raw] = below.node
            return below
        inode = (info.st_dev, info.st_ino)
        leaf = self._leaves.get(inode)
        if leaf is None:
            if stat.S_ISREG(info.st_mode):
                leaf = self._file(parent, name, info)
            else:
                # The xattr calls take no directory descriptor.
                target = b"/proc/self/fd/%d/%s" % (parent, raw)
                leaf = Leaf(_stat(info, target, None), special_content(parent, name, info))
            self._leaves[inode] = leaf
        level.node.entries[raw] = leaf
        return None

    def _file(self, parent: int, name: str, seen: os.stat_result) -> Leaf:
        path = self._way.path(name)
        fd = os.open(name, _OPEN_FILE, dir_fd=parent)
        try:
            info = os.fstat(fd)
            _check_same(seen, info, path)
            self._account(info, path)
            leaf = Leaf(_stat(info, fd, fd), self._content(fd, info, path))
            _check_same(info, os.fstat(fd), path)
        finally:
            os.close(fd)
        return leaf

    def _account(self, info: os.stat_result, path: str) -> None:
        if self._limit_bytes is None:
            return
        size = data_bytes(info)
        self._read_bytes += size
        self._largest = max(self._largest, (size, path))
        if self._read_bytes > self._limit_bytes:
            largest_bytes, largest = self._largest
            top = self._way.top_path
            raise TreeTooLarge(top, self._limit_bytes, largest, largest_bytes)

    def _content(self, fd: int, info: os.stat_result, path: str) -> Content:
        size = info.st_size
        if size <= INLINE_MAX_BYTES:
            return Inline(_read_small(fd, size, path))
        with self._sink.writer() as writer:
            if not writer.clone(fd):
                self._stream(fd, info, path, writer)
            return External(writer.commit(), size)

    def _stream(self, fd: int, info: os.stat_result, path: str, writer: ContentWriter) -> None:
        done = 0
        for start, end in data_extents(fd, info):
            writer.write_zeros(start - done)
            for offset in range(start, end, _CHUNK_BYTES):
                piece = self._buffer[: min(_CHUNK_BYTES, end - offset)]
                if _read_at(fd, piece, offset) < len(piece):
                    raise TreeChanged(path)
                writer.write(piece)
            done = end
        writer.write_zeros(info.st_size - done)


def _read_small(fd: int, size: int, path: str) -> bytes:
    # One byte more than expected shows that the file has grown.
    data = os.pread(fd, size + 1, 0)
    if len(data) != size:
        raise TreeChanged(path)
    return data


def _read_at(fd: int, buffer: memoryview, offset: int) -> int:
    """Fill a buffer from a file, and return the number of bytes."""
    done = 0
    while done < len(buffer) and (count := os.preadv(fd, [buffer[done:]], offset + done)):
        done += count
    return done


def special_content(parent: int, name: str, info: os.stat_result) -> Content:
    """Return the value of an entry that is neither a directory nor a regular file."""
    match stat.S_IFMT(info.st_mode):
        case stat.S_IFLNK:
            return Symlink(os.fsencode(os.readlink(name, dir_fd=parent)))
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


def _stat(info: os.stat_result, target: int | bytes, fd: int | None) -> Stat:
    """Return the metadata of an inode. Special files have no descriptor, and no flags."""
    mtime_s, mtime_ns = divmod(info.st_mtime_ns, 1_000_000_000)
    mode = stat.S_IMODE(info.st_mode)
    protection = 0 if fd is None else protection_of(fd)
    return Stat(mode, info.st_uid, info.st_gid, mtime_s, mtime_ns, read_xattrs(target), protection)


def read_xattrs(target: int | bytes) -> dict[bytes, bytes]:
    """Return the extended attributes of a descriptor or a path, which is not followed."""
    # Python refuses follow_symlinks=False for a descriptor.
    follow = isinstance(target, int)
    try:
        names = os.listxattr(target, follow_symlinks=follow)
    except OSError as exc:
        if exc.errno == errno.EOPNOTSUPP:
            return {}  # a network or FUSE file system without xattrs
        raise
    return {os.fsencode(name): os.getxattr(target, name, follow_symlinks=follow) for name in names}
