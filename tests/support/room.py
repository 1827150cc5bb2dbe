"""Boot partitions that have an end.

A :class:`Volume` is a directory which, within :func:`limited`, is as large as a FAT file
system of so many clusters. Files take whole clusters; directories too, by the names in
them. What does not fit fails at the system call that finds out on a disk: making a name,
which may need another cluster of its directory, and ``fsync`` of what was written, where a
file system that allocates late says so as well. Only calls are replaced, none of ours, so
that it goes on in child processes and together with what :mod:`support.failing` counts.

What others have there is not written, but taken off the size.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bootc.kernel import files

CLUSTER_BYTES = 512
#: FAT keeps a name in records of 32 bytes, the long form of it in 13 characters each.
_RECORD_BYTES, _RECORD_CHARACTERS = 32, 13


class Volume:
    """The file system at ``root``: without an end until it gets one."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        #: How many clusters it has; None: there is no end to them.
        self.clusters: int | None = None

    def leave(self, clusters: int) -> None:
        """Have somebody fill it up to so many clusters."""
        self.clusters = self.used() + clusters

    def lift(self) -> None:
        """Have somebody take away all that fills it."""
        self.clusters = None

    def used(self) -> int:
        """Return how many clusters are in use."""
        return _used(self.root)

    def free(self) -> int:
        """Return how many clusters are not in use."""
        assert self.clusters is not None
        return max(self.clusters - self.used(), 0)

    def exceeded(self) -> bool:
        """Tell whether there is more in it than fits."""
        return self.clusters is not None and self.used() > self.clusters

    def statvfs(self) -> os.statvfs_result:
        """Return what the file system says of itself."""
        assert self.clusters is not None
        free, size = self.free(), CLUSTER_BYTES
        return os.statvfs_result((size, size, self.clusters, free, free, 0, 0, 0, 0, 255))


def clusters_of(size_bytes: int) -> int:
    """Return how many clusters a file takes."""
    return -(-size_bytes // CLUSTER_BYTES)


def directory_clusters(names: Iterable[str]) -> int:
    """Return how many clusters a directory of these names takes."""
    records = 2 + sum(1 - (-len(name) // _RECORD_CHARACTERS) for name in names)
    return clusters_of(records * _RECORD_BYTES)


@contextmanager
def limited(*volumes: Volume) -> Iterator[None]:
    """Let these be as large as they are said to be, now or later."""
    with pytest.MonkeyPatch.context() as patch:
        _patch_names(patch, volumes)
        _patch_content(patch, volumes)
        yield


def _patch_names(patch: pytest.MonkeyPatch, volumes: tuple[Volume, ...]) -> None:
    os_open, openat2, mkdir, rename = os.open, files.openat2, os.mkdir, os.rename

    def opening(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        volume = _find(volumes, path, dir_fd) if flags & os.O_CREAT else None
        is_new = volume is not None and not _exists(path, dir_fd)
        fd = os_open(path, flags, mode, dir_fd=dir_fd)
        if volume is not None and is_new:
            _require_cluster(volume, fd, path, dir_fd)
        return fd

    def opening_at(dirfd: int, path: str, flags: int, mode: int, resolve: int) -> int:
        volume = _find(volumes, path, dirfd) if flags & os.O_CREAT else None
        is_new = volume is not None and not _exists(path, dirfd)
        fd = openat2(dirfd, path, flags, mode, resolve)
        if volume is not None and is_new:
            _require_cluster(volume, fd, path, dirfd)
        return fd

    def making(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        volume = _find(volumes, path, dir_fd)
        mkdir(path, mode, dir_fd=dir_fd)
        if volume is not None and volume.exceeded():
            os.rmdir(path, dir_fd=dir_fd)
            raise _full(path)

    def renaming(
        old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        volume = _find(volumes, new, dst_dir_fd)
        replaces = volume is not None and _exists(new, dst_dir_fd)
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        # A longer name may need another cluster of the directory.
        if volume is not None and not replaces and volume.exceeded():
            rename(new, old, src_dir_fd=dst_dir_fd, dst_dir_fd=src_dir_fd)
            raise _full(new)

    patch.setattr(os, "open", opening)
    patch.setattr(files, "openat2", opening_at)
    patch.setattr(os, "mkdir", making)
    patch.setattr(os, "rename", renaming)


def _patch_content(patch: pytest.MonkeyPatch, volumes: tuple[Volume, ...]) -> None:
    fsync, statvfs = os.fsync, os.statvfs

    def syncing(fd: int) -> None:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            volume = _find(volumes, ".", fd)
            if volume is not None and volume.exceeded():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(fd)

    def asking(path: Any) -> os.statvfs_result:
        volume = _find(volumes, ".", path) if isinstance(path, int) else _find(volumes, path, None)
        return statvfs(path) if volume is None else volume.statvfs()

    patch.setattr(os, "fsync", syncing)
    patch.setattr(os, "statvfs", asking)


def _find(volumes: tuple[Volume, ...], path: Any, dir_fd: int | None) -> Volume | None:
    """Return the volume with an end that a path is in."""
    if all(volume.clusters is None for volume in volumes):
        return None
    full = os.fspath(path)
    if dir_fd is not None:
        full = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), os.fsdecode(full))
    for volume in volumes:
        if volume.clusters is not None and f"{full}/".startswith(f"{volume.root}/"):
            return volume
    return None


def _require_cluster(volume: Volume, fd: int, path: Any, dir_fd: int | None) -> None:
    """Undo the making of a file where nothing is left for its content, or for its name."""
    assert volume.clusters is not None
    if volume.used() >= volume.clusters:
        os.close(fd)
        os.unlink(path, dir_fd=dir_fd)
        raise _full(path)


def _exists(path: Any, dir_fd: int | None) -> bool:
    with suppress(FileNotFoundError):
        os.stat(path, dir_fd=dir_fd, follow_symlinks=False)
        return True
    return False


def _full(path: object) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def _used(directory: str) -> int:
    total, names = 0, []
    with os.scandir(directory) as entries:
        for entry in entries:
            names.append(entry.name)
            if entry.is_dir(follow_symlinks=False):
                total += _used(entry.path)
            else:
                total += clusters_of(entry.stat(follow_symlinks=False).st_size)
    return total + directory_clusters(names)
