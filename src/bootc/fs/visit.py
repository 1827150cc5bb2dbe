"""Lists every name below a directory, without reading the files.

A directory comes before its entries, and names are in bytewise order. Promises: no symlink
is followed and no mount is entered, bind mounts of a directory of the same file system
included. A mount point itself is listed. An entry costs no system call of its own.

:mod:`bootc.fs.tree_read` instead reads a tree as a whole.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

from bootc.fs.descent import Descent, MountPoint
from bootc.fs.dir import Dir
from bootc.kernel import files

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_ANY = os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW
_STAY = files.RESOLVE_BENEATH | files.RESOLVE_NO_SYMLINKS | files.RESOLVE_NO_XDEV


class Visited(NamedTuple):
    """An entry of a directory, valid until the next step of the walk.

    Attributes:
        parent: Descriptor of the directory, open until the next entry is asked for.
        path: The path below the top. Bytes that are not UTF-8 are encoded by :func:`os.fsdecode`.
        entry: Its name and type. Other metadata are read on demand.
    """

    parent: int
    path: str
    entry: os.DirEntry[str]


def visit(
    top: Dir, descend: Callable[[str], bool] = lambda path: True
) -> Generator[Visited, None, None]:
    """Yield everything below a directory.

    Args:
        top: The directory, which is not yielded itself.
        descend: Returns for the path of a directory whether the walk enters it.

    Raises:
        OSError: a directory cannot be read; EMFILE if directories are nested deeper than the
            process may open files.
    """
    levels: list[tuple[int, str, Iterator[os.DirEntry[str]]]] = []
    try:
        levels.append(_enter(top.fileno(), ".", "", top))
        while levels:
            fd, prefix, entries = levels[-1]
            entry = next(entries, None)
            if entry is None:
                os.close(levels.pop()[0])
                continue
            path = prefix + entry.name
            yield Visited(fd, path, entry)
            if entry.is_dir(follow_symlinks=False) and descend(path):
                try:
                    levels.append(_enter(fd, entry.name, f"{path}/", top))
                except OSError as exc:
                    # A mount point, or another process has just removed it, as in /tmp.
                    if exc.errno not in (errno.EXDEV, errno.ENOENT):
                        raise
    finally:
        for fd, _, _ in levels:
            os.close(fd)


def is_mount_point(visited: Visited) -> bool:
    """Tell whether another mount begins at an entry, be it a directory or a file."""
    try:
        os.close(files.openat2(visited.parent, visited.entry.name, _ANY, 0, _STAY))
    except OSError as exc:
        if exc.errno == errno.EXDEV:
            return True
        if exc.errno != errno.ENOENT:
            raise
    return False


def _enter(
    parent: int, name: str, prefix: str, top: Dir
) -> tuple[int, str, Iterator[os.DirEntry[str]]]:
    try:
        fd = files.openat2(parent, name, _DIRECTORY, 0, _STAY)
        try:
            with os.scandir(fd) as entries:
                listed = sorted(entries, key=_bytewise)
        except BaseException:
            os.close(fd)
            raise
    except OSError as exc:
        exc.filename = f"{top.path.rstrip('/')}/{prefix}".rstrip("/") or "/"
        raise
    return fd, prefix, iter(listed)


def _bytewise(entry: os.DirEntry[str]) -> bytes:
    return os.fsencode(entry.name)


def files_below(root: Dir, path: str) -> Iterator[os.stat_result]:
    """Yield the status of every file at or below a path; nothing if the path does not exist.

    Directories at mount points are not entered.
    """
    try:
        info = root.stat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        yield info
        return
    with root.open_dir(path) as top, Descent(top.fileno(), top.path, cross_mounts=False) as way:
        # A loop, not recursion: directories may be nested deeper than Python calls functions.
        pending = [os.listdir(way.fileno())]
        while pending:
            if not pending[-1]:
                pending.pop()
                if pending:
                    way.leave()
                continue
            name = pending[-1].pop()
            info = os.stat(name, dir_fd=way.fileno(), follow_symlinks=False)
            if not stat.S_ISDIR(info.st_mode):
                yield info
                continue
            with contextlib.suppress(MountPoint):
                pending.append(os.listdir(way.enter(name)))
