"""Disks that fail, and power that fails, at a chosen change.

Every change the library makes to a directory goes through :mod:`bootc.fs.dir` and
:mod:`bootc.fs.atomic`, where these count them; of a tree that is removed every entry
counts. The n-th does not happen. With :func:`failing` it raises an ``OSError``, once, and
with :func:`interrupting` what a signal raises. With
:func:`dies` the process ends there and then, in a child, since nobody tidies up after a
power cut; files that were named and whose content no sync had followed are empty after it,
as a journal leaves them. With :func:`killed` only the process ends, and what it wrote stays.
With :func:`meanwhile` the change is made, after something else has happened.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import pytest

from bootc.fs import atomic, rawdevice, removal
from bootc.fs.atomic import Tmpfile
from bootc.fs.dir import Dir
from bootc.kernel import efivars
from bootc.repository import store_batch
from support.children import exit_status_of_fork

_CHANGES = ("mkdir", "symlink", "unlink", "rename", "sync")
_CALLS = (
    (atomic, "exchange"),
    (removal, "_unlink"),
    (removal, "_rmdir"),
    (efivars, "write_variable"),
    (efivars, "remove_variable"),
    (rawdevice, "_write_block"),
    (rawdevice, "_write_chunk"),
)
_DEAD = 77
_CREATES = os.O_CREAT | (os.O_TMPFILE & ~os.O_DIRECTORY)


class Changes:
    """Counts changes, and prevents one.

    Args:
        at: Which one, counted from 1.
        fail: Called instead of it.
        cut: Remember what a power cut would lose. It keeps files open.
    """

    def __init__(self, at: int, fail: Callable[[Changes], object], *, cut: bool = False) -> None:
        self.count = 0
        self._at = at
        self._fail = fail
        self._cut = cut
        self._fails_again = False
        self._unsynced: set[int] = set()
        self._named: dict[int, str] = {}
        #: Files made under a name, which may have changed since.
        self._made: dict[int, int] = {}

    @property
    def failed(self) -> bool:
        return self.count >= self._at

    def happen(self, *, in_batch: bool = False) -> None:
        """Count a change, or let it fail.

        The store tries what failed in a batch once more by itself. It fails again then, as a full
        disk does.
        """
        self.count += 1
        if self.count == self._at or self._fails_again:
            self._fails_again = in_batch
            self._fail(self)

    def wrote(self, fd: int) -> None:
        self._unsynced.add(os.fstat(fd).st_ino)

    def named(self, fd: int, path: str) -> None:
        self._named[os.fstat(fd).st_ino] = path

    def made(self, fd: int) -> None:
        if self._cut:
            self._made[os.fstat(fd).st_ino] = os.dup(fd)

    def synced_file(self, fd: int) -> None:
        inode = os.fstat(fd).st_ino
        self._unsynced.discard(inode)
        kept = self._made.pop(inode, None)
        if kept is not None:
            os.close(kept)

    def synced(self) -> None:
        self._unsynced.clear()
        for fd in list(self._made.values()):
            self.synced_file(fd)

    def lose_unsynced(self) -> None:
        for inode in self._unsynced & self._named.keys():
            os.truncate(self._named[inode], 0)
        for fd in self._made.values():
            os.ftruncate(fd, 0)


@contextmanager
def failing(at: int, error: int) -> Iterator[Changes]:
    """Let the ``at``-th change fail with this ``errno``."""

    def fail(changes: Changes) -> None:
        raise OSError(error, os.strerror(error))

    with _counting(Changes(at, fail)) as changes:
        yield changes


@contextmanager
def interrupting(at: int) -> Iterator[Changes]:
    """Have the command interrupted by a signal at its ``at``-th change."""

    def interrupt(changes: Changes) -> None:
        raise KeyboardInterrupt

    with _counting(Changes(at, interrupt)) as changes:
        yield changes


Failing = Callable[[int], AbstractContextManager[Changes]]
#: How a command comes to an end at a change, and what is said of a finalizer then.
FAILURES: dict[str, tuple[Failing, str]] = {
    "interrupted": (interrupting, "it was interrupted"),
    "full": (partial(failing, error=errno.ENOSPC), "No space left on device"),
}


@contextmanager
def meanwhile(at: int, happens: Callable[[], object]) -> Iterator[Changes]:
    """Let something happen right before the ``at``-th change."""
    with _counting(Changes(at, lambda _: happens())) as changes:
        yield changes


def dies(at: int, work: Callable[[], object]) -> bool:
    """Do something in a child whose power fails at its ``at``-th change; tell whether it did."""

    def die(changes: Changes) -> None:
        changes.lose_unsynced()
        os._exit(_DEAD)

    return _in_child(Changes(at, die, cut=True), work)


def killed(at: int, work: Callable[[], object]) -> bool:
    """Do something in a child that is killed at its ``at``-th change; tell whether it was."""
    return _in_child(Changes(at, lambda _: os._exit(_DEAD)), work)


def _in_child(changes: Changes, work: Callable[[], object]) -> bool:
    def counted() -> None:
        with _counting(changes):
            work()

    code = exit_status_of_fork(counted)
    assert code in (0, _DEAD), f"the child failed ({code})"
    return code == _DEAD


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


@contextmanager
def _counting(changes: Changes) -> Iterator[Changes]:
    with pytest.MonkeyPatch.context() as patch:
        for name in _CHANGES:
            patch.setattr(Dir, name, _counted(getattr(Dir, name), changes, name == "sync"))
        for module, name in _CALLS:
            patch.setattr(module, name, _counted(getattr(module, name), changes, False))
        _patch_files(patch, changes)
        yield changes


def _counted(method: Callable[..., Any], changes: Changes, syncs: bool) -> Callable[..., Any]:
    def changing(*args: Any, **kwargs: Any) -> Any:
        changes.happen()
        result = method(*args, **kwargs)
        if syncs:
            changes.synced()
        return result

    return changing


def _patch_files(patch: pytest.MonkeyPatch, changes: Changes) -> None:
    open_file, write, publish = Dir.open_file, Tmpfile.write, Tmpfile.publish

    def opening(self: Dir, relpath: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        if not flags & _CREATES:
            return open_file(self, relpath, flags, mode)
        changes.happen()
        fd = open_file(self, relpath, flags, mode)
        if flags & os.O_CREAT:
            changes.made(fd)
        return fd

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

    fsync = os.fsync

    def syncing(fd: int) -> None:
        fsync(fd)
        changes.synced_file(fd)

    _patch_batches(patch, changes)
    patch.setattr(os, "fsync", syncing)
    patch.setattr(Dir, "open_file", opening)
    patch.setattr(Tmpfile, "write", writing)
    patch.setattr(Tmpfile, "publish", publishing)


def _patch_batches(patch: pytest.MonkeyPatch, changes: Changes) -> None:
    """Count the changes of batches; those of the extension cannot be counted."""
    create, name = store_batch._create, store_batch._name

    def creating(
        objects_fd: int, content: bytes, digest: tuple[int, bytes], *, enable: bool
    ) -> int:
        try:
            changes.happen(in_batch=True)
        except OSError:
            return store_batch.UNDECIDED
        fd = create(objects_fd, content, digest, enable=enable)
        if fd >= 0:
            changes.wrote(fd)
        return fd

    def naming(objects_fd: int, fd: int, path: bytes) -> int:
        try:
            changes.happen(in_batch=True)
        except OSError as exc:
            return exc.errno or errno.EIO
        error = name(objects_fd, fd, path)
        if not error:
            home = os.readlink(f"/proc/self/fd/{objects_fd}")
            changes.named(fd, f"{home}/{path.decode()}")
        return error

    patch.setattr(store_batch, "store_batch", store_batch.store_batch_pure)
    patch.setattr(store_batch, "name_batch", store_batch.name_batch_pure)
    patch.setattr(store_batch, "_create", creating)
    patch.setattr(store_batch, "_name", naming)
