"""Disks that fail, and power that fails, at a chosen change.

Every change the library makes to a directory goes through :class:`bootc.fs.dir.Dir` and
:class:`bootc.fs.atomic.Tmpfile`; within :func:`failing` these count them. The n-th does not
happen: it raises an ``OSError`` once, or :class:`PowerCut` from then on, since a process
without power tidies nothing up. A power cut also empties the files that were named and
whose content no sync had followed, as journalling file systems do.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from bootc.fs.atomic import Tmpfile
from bootc.fs.dir import Dir

_CHANGES = ("mkdir", "symlink", "unlink", "rename", "remove_tree", "sync")
_CREATES = os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY)


class PowerCut(BaseException):
    """The machine is off."""


class Changes:
    """Counts changes, and prevents one or all from one on.

    Args:
        at: The first that fails, counted from 1; 0 for none.
        error: The ``errno`` it fails with, or None for a power cut.
    """

    def __init__(self, at: int, error: int | None) -> None:
        self.count = 0
        self.failed = False
        self._at = at
        self._error = error
        self._unsynced: set[int] = set()
        self._named: dict[int, str] = {}

    def happen(self) -> None:
        self.count += 1
        if self._error is None and self.failed:
            raise PowerCut
        if self.count == self._at:
            self.failed = True
            if self._error is None:
                self._lose_unsynced()
                raise PowerCut
            raise OSError(self._error, os.strerror(self._error))

    def wrote(self, fd: int) -> None:
        self._unsynced.add(os.fstat(fd).st_ino)

    def named(self, fd: int, path: str) -> None:
        self._named[os.fstat(fd).st_ino] = path

    def synced(self) -> None:
        self._unsynced.clear()

    def _lose_unsynced(self) -> None:
        for inode in self._unsynced & self._named.keys():
            os.truncate(self._named[inode], 0)


@contextmanager
def failing(at: int, error: int | None = None) -> Iterator[Changes]:
    """Let the ``at``-th change fail; a power cut ends the block quietly."""
    changes = Changes(at, error)
    with pytest.MonkeyPatch.context() as patch:
        for name in _CHANGES:
            patch.setattr(Dir, name, _counted(getattr(Dir, name), changes, name == "sync"))
        _patch_files(patch, changes)
        with suppress(PowerCut):
            yield changes


@contextmanager
def without_nameless_files() -> Iterator[None]:
    """Be a file system without ``O_TMPFILE``, where temporary files have names."""
    opened = Dir.open_file

    def open_file(self: Dir, relpath: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return opened(self, relpath, flags, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dir, "open_file", open_file)
        yield


def _counted(method: Callable[..., Any], changes: Changes, syncs: bool) -> Callable[..., Any]:
    def changing(self: Dir, *args: Any, **kwargs: Any) -> Any:
        changes.happen()
        result = method(self, *args, **kwargs)
        if syncs:
            changes.synced()
        return result

    return changing


def _patch_files(patch: pytest.MonkeyPatch, changes: Changes) -> None:
    open_file, write, publish = Dir.open_file, Tmpfile.write, Tmpfile.publish

    def opening(self: Dir, relpath: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        if flags & _CREATES:
            changes.happen()
        return open_file(self, relpath, flags, mode)

    def writing(self: Tmpfile, data: bytes) -> None:
        changes.happen()
        write(self, data)
        changes.wrote(self.fileno())

    def publishing(self: Tmpfile, directory: Dir, relpath: str) -> bool:
        changes.happen()
        done = publish(self, directory, relpath)
        if done:
            changes.named(self.fileno(), f"{directory.path}/{relpath}")
        return done

    patch.setattr(Dir, "open_file", opening)
    patch.setattr(Tmpfile, "write", writing)
    patch.setattr(Tmpfile, "publish", publishing)
