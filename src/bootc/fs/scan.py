"""Copies a real directory tree, everything an inode can say included.

What ``cp -a SOURCE/. TARGET/.`` does, without a process: owner, group, mode,
xattrs (security labels, capabilities and ACLs among them), times, hard links,
symlinks, devices, pipes, sockets and the holes of sparse files. Names and
targets stay bytes. Everything is done beneath two directory descriptors and no
symlink is followed, so an image cannot point the copy at files of the host.

Promises: a file that exists in the target is replaced, never written through; a
directory that exists is merged into; a failure names the path it happened at.
Not promised: durability. Call ``Dir.sync`` before anything refers to the copy.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress

from bootc.errors import doing
from bootc.fs.dir import Dir

#: How much one sendfile call is asked to move; the kernel moves at most this.
_CHUNK_BYTES = 1 << 30
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW
_OPEN_DIR = _OPEN | os.O_RDONLY | os.O_DIRECTORY


def copy_tree(source: Dir, target: Dir) -> None:
    """Copy what ``source`` contains into ``target``, and its own metadata onto ``target``.

    Raises:
        OSError: reading or writing failed; a note names the path. ``ENOTDIR`` and
            ``EISDIR`` where a directory meets something that is none.
    """
    _Copy(target.fileno()).directory(source.fileno(), target.fileno(), b"")


class _Copy:
    """One run of :func:`copy_tree`: remembers where inodes with several names went."""

    def __init__(self, target_root: int) -> None:
        self._target_root = target_root
        self._first_names: dict[tuple[int, int], bytes] = {}

    def directory(self, source: int, target: int, path: bytes) -> None:
        with os.scandir(source) as entries:
            names = sorted(os.fsencode(entry.name) for entry in entries)
        for name in names:
            info = os.stat(name, dir_fd=source, follow_symlinks=False)
            inside = path + b"/" + name if path else name
            if stat.S_ISDIR(info.st_mode):
                self._subdirectory(source, target, name, inside)
            else:
                with doing(_copying(inside)):
                    self._leaf(info, source, target, name, inside)
        # Last, because every entry made above moved the time on.
        with doing(_copying(path or b".")):
            copy_metadata(_self_path(source), _self_path(target), os.fstat(source))

    def _subdirectory(self, source: int, target: int, name: bytes, path: bytes) -> None:
        with ExitStack() as stack:
            with doing(_copying(path)):
                # Closed to others until its owner and mode are set.
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=target)
                from_fd = os.open(name, _OPEN_DIR, dir_fd=source)
                stack.callback(os.close, from_fd)
                to_fd = os.open(name, _OPEN_DIR, dir_fd=target)
                stack.callback(os.close, to_fd)
            self.directory(from_fd, to_fd, path)

    def _leaf(
        self, info: os.stat_result, source: int, target: int, name: bytes, path: bytes
    ) -> None:
        # A directory in the way fails here, with EISDIR, as cp does.
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=target)
        if info.st_nlink > 1 and self._link(info, target, name, path):
            return
        match stat.S_IFMT(info.st_mode):
            case stat.S_IFREG:
                _copy_content(source, target, name, info.st_size)
            case stat.S_IFLNK:
                os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            case kind:
                os.mknod(name, kind | 0o600, info.st_rdev, dir_fd=target)
        copy_metadata(_entry_path(source, name), _entry_path(target, name), info)

    def _link(self, info: os.stat_result, target: int, name: bytes, path: bytes) -> bool:
        """Link to the inode's first copy, or remember ``path`` as the one to come."""
        first = self._first_names.setdefault((info.st_dev, info.st_ino), path)
        if first == path:
            return False
        os.link(first, name, src_dir_fd=self._target_root, dst_dir_fd=target, follow_symlinks=False)
        return True


def _copy_content(source: int, target: int, name: bytes, size: int) -> None:
    from_fd = os.open(name, _OPEN | os.O_RDONLY | os.O_NONBLOCK, dir_fd=source)
    try:
        to_fd = os.open(name, _OPEN | os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=target)
        try:
            _copy_extents(from_fd, to_fd, size)
            os.ftruncate(to_fd, size)
        finally:
            os.close(to_fd)
    finally:
        os.close(from_fd)


def _copy_extents(source: int, target: int, size: int) -> None:
    """Copy the data up to ``size`` and leave the holes out."""
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:
                return  # only a hole is left
            raise
        end = min(os.lseek(source, start, os.SEEK_HOLE), size)
        os.lseek(target, start, os.SEEK_SET)
        while start < end:
            moved = os.sendfile(target, source, start, min(end - start, _CHUNK_BYTES))
            if moved == 0:
                return  # the file shrank meanwhile
            start += moved


def copy_metadata(source: bytes, target: bytes, info: os.stat_result) -> None:
    """Give one file owner, mode, xattrs and times of another; neither path is followed.

    Args:
        source: Whose xattrs they are.
        target: Which file gets them.
        info: The rest, as ``lstat`` has it.
    """
    # The order matters: a new owner clears the set-id bits and the capability,
    # and everything before moves the times.
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


def _copying(path: bytes) -> str:
    return f"Copying {os.fsdecode(path)!r}"


def _self_path(fd: int) -> bytes:
    # The xattr calls take no directory descriptor; the slash-dot stops the
    # magic link itself from being taken for the symlink not to follow.
    return b"/proc/self/fd/%d/." % fd


def _entry_path(fd: int, name: bytes) -> bytes:
    return b"/proc/self/fd/%d/%s" % (fd, name)
