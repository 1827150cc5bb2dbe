"""Copies a real directory tree with all metadata.

It does the same as ``cp -a SOURCE/. TARGET/.``: owner, group, mode,
xattrs (security labels, capabilities and ACLs among them), times, hard links,
symlinks, devices, pipes, sockets and the holes of sparse files. Names and
targets stay bytes. Everything is done beneath two directory descriptors and no
symlink is followed, so an image cannot point the copy at files of the host.

Promises: a file that exists in the target is replaced, never written through; a
directory that exists is merged; a failure names its path. Mounts below the source are not
part of its tree: the copy fails there.
Not promised: durability. Call ``Dir.sync`` before anything refers to the copy.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress

from bootc.errors import doing
from bootc.formats.tree import MAX_DEPTH
from bootc.fs.descent import Descent
from bootc.fs.dir import Dir
from bootc.fs.extents import data_extents

#: The amount that one call of sendfile shall move. The kernel may move less.
_CHUNK_BYTES = 1 << 30
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW


def copy_tree(source: Dir, target: Dir) -> None:
    """Copy the content of ``source`` into ``target``, and its metadata to ``target`` itself.

    Raises:
        MountPoint: something is mounted below ``source``.
        OSError: reading or writing failed; a note names the path. ``ENOTDIR`` and ``EISDIR`` if
            only one of both is a directory, ``ENAMETOOLONG`` if directories are nested too deeply.
    """
    with ExitStack() as stack:
        source_way = stack.enter_context(
            Descent(source.fileno(), source.path, cross_mounts=False, max_depth=MAX_DEPTH)
        )
        target_way = stack.enter_context(Descent(target.fileno(), target.path))
        _Copy(source_way, target_way).run()


class _Copy:
    """One run of :func:`copy_tree`: remembers the copies of inodes with several names."""

    def __init__(self, source: Descent, target: Descent) -> None:
        self._source = source
        self._target = target
        self._target_root = target.fileno()
        self._first_names: dict[tuple[int, int], bytes] = {}

    def run(self) -> None:
        # A list instead of recursion: names may be nested deeper than Python calls.
        pending = [self._names()]
        while pending:
            if not pending[-1]:
                pending.pop()
                self._finish()
                if pending:
                    self._source.leave()
                    self._target.leave()
            elif self._enters(pending[-1].pop()):
                pending.append(self._names())

    def _names(self) -> list[str]:
        return sorted(os.listdir(self._source.fileno()), reverse=True)

    def _finish(self) -> None:
        # Last, because each new entry changes the time of the directory.
        source, target = self._source.fileno(), self._target.fileno()
        with doing(_copying(self._source.relpath())):
            copy_metadata(_self_path(source), _self_path(target), os.fstat(source))

    def _enters(self, name: str) -> bool:
        """Copy an entry. Of a directory, only make it and go into it: then return True."""
        source, target = self._source.fileno(), self._target.fileno()
        with doing(_copying(self._source.relpath(name))):
            info = os.stat(name, dir_fd=source, follow_symlinks=False)
            if not stat.S_ISDIR(info.st_mode):
                self._leaf(info, source, target, os.fsencode(name))
                return False
            self._source.enter(name)
            # Only root may enter it until its owner and mode are set.
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=target)
            self._target.enter(name)
            return True

    def _leaf(self, info: os.stat_result, source: int, target: int, name: bytes) -> None:
        # A directory in the way fails here, with EISDIR, as cp does.
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=target)
        if info.st_nlink > 1 and self._link(info, target, name):
            return
        match stat.S_IFMT(info.st_mode):
            case stat.S_IFREG:
                _copy_content(source, target, name)
            case stat.S_IFLNK:
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            case kind:
                os.mknod(name, kind | 0o600, info.st_rdev, dir_fd=target)
        copy_metadata(_entry_path(source, name), _entry_path(target, name), info)

    def _link(self, info: os.stat_result, target: int, name: bytes) -> bool:
        """Link to the inode's first copy, or remember this name for the first copy."""
        path = os.fsencode(self._source.whole_relpath(os.fsdecode(name)))
        first = self._first_names.setdefault((info.st_dev, info.st_ino), path)
        if first == path:
            return False
        os.link(first, name, src_dir_fd=self._target_root, dst_dir_fd=target, follow_symlinks=False)
        return True


def _copy_content(source: int, target: int, name: bytes) -> None:
    from_fd = os.open(name, _OPEN | os.O_RDONLY | os.O_NONBLOCK, dir_fd=source)
    try:
        to_fd = os.open(name, _OPEN | os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=target)
        try:
            os.ftruncate(to_fd, _copy_extents(from_fd, to_fd))
        finally:
            os.close(to_fd)
    finally:
        os.close(from_fd)


def _copy_extents(source: int, target: int) -> int:
    """Copy the data and leave the holes out; return the size of the whole file."""
    info = os.fstat(source)
    for begin, end in data_extents(source, info):
        start = begin
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            moved = os.sendfile(target, source, start, min(end - start, _CHUNK_BYTES))
            if moved == 0:
                break  # another process has truncated the file
            start += moved
    return info.st_size


def copy_metadata(source: bytes, target: bytes, info: os.stat_result) -> None:
    """Give one file owner, mode, xattrs and times of another; neither path is followed.

    Args:
        source: The file with the xattrs.
        target: The file that gets the metadata.
        info: All other metadata, as ``lstat`` returns them.
    """
    # The order matters: chown clears the set-id bits and the capability, and each of these calls
    # changes the times.
    os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(target, stat.S_IMODE(info.st_mode))
    _copy_xattrs(source, target)
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def _copy_xattrs(source: bytes, target: bytes) -> None:
    try:
        names = os.listxattr(source, follow_symlinks=False)
    except OSError as exc:
        if exc.errno == errno.EOPNOTSUPP:
            return  # the source has none to lose
        raise
    for name in names:
        value = os.getxattr(source, name, follow_symlinks=False)
        with doing(f"Setting the extended attribute {name}"):
            os.setxattr(target, name, value, follow_symlinks=False)


def _copying(path: str) -> str:
    return f"Copying {path!r}"


def _self_path(fd: int) -> bytes:
    # The xattr calls take no directory descriptor; the slash-dot stops the
    # magic link itself from being taken for the symlink not to follow.
    return b"/proc/self/fd/%d/." % fd


def _entry_path(fd: int, name: bytes) -> bytes:
    return b"/proc/self/fd/%d/%s" % (fd, name)
