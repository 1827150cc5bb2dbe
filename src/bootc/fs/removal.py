"""Removes a directory tree of any depth and with any content.

Promises:

- Only files of the parent's file system are removed. Mounts below, including bind mounts, are
  never entered: the mounted files are kept, and the directories above the mount point, too. The
  kernel itself refuses to cross (openat2(2), ``RESOLVE_NO_XDEV``). If it does not know that call,
  the numbers of the two mounts are compared.
- The immutable and the append-only flag (``chattr +i``, ``chattr +a``) do not prevent a removal.
  They are cleared only on removed files: a file that has another name elsewhere gets its flags
  back.
- If one file cannot be removed, the others still are. The first failure is reported with
  its whole path.
- No symlink is followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass, field

from bootc.fs.descent import Descent, MountPoint
from bootc.fs.protection import clear_protection, protect, protection_of

_OPEN_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def remove_tree(parent: int, name: str, path: str) -> None:
    """Remove an entry of a directory and all below it. A missing entry is not an error.

    Args:
        parent: Descriptor of the directory.
        name: The entry.
        path: How messages name the directory.

    Raises:
        MountPoint: something is mounted there or below. Everything else is removed.
        OSError: an entry could not be removed; the error names it, and a note says how many there
            are. All others are removed.
    """
    with Descent(parent, path, cross_mounts=False) as descent:
        _Removal(descent).run(name)


@dataclass(slots=True)
class _Level:
    """A directory on the way: the entries still to remove, and whether one cannot be removed."""

    pending: list[str]
    stays: bool = False


@dataclass(slots=True)
class _Removal:
    """One run of :func:`remove_tree`."""

    descent: Descent
    first: OSError | None = None
    failures: int = 0
    levels: list[_Level] = field(default_factory=list)

    def run(self, name: str) -> None:
        self.levels.append(_Level([name]))
        while self.levels[-1].pending or self.descent.depth:
            if self.levels[-1].pending:
                self._entry(self.levels[-1].pending.pop())
            else:
                self._leave()
        if self.first is not None:
            if self.failures > 1:
                self.first.add_note(f"{self.failures} entries could not be removed, the first is")
            raise self.first

    def _entry(self, name: str) -> None:
        try:
            if not _unlink(self.descent.fileno(), name):
                self._enter(name)
        except OSError as exc:
            self._failed(exc, name)

    def _enter(self, name: str) -> None:
        below = self.descent.enter(name)
        try:
            # The entries of a directory with one of the flags cannot be removed.
            clear_protection(below)
            self.levels.append(_Level(os.listdir(below)))
        except OSError:
            self.descent.leave()
            raise

    def _leave(self) -> None:
        level, name = self.levels.pop(), self.descent.name
        self.descent.leave()
        if level.stays:
            self.levels[-1].stays = True
            return
        try:
            _rmdir(self.descent.fileno(), name)
        except OSError as exc:
            self._failed(exc, name)

    def _failed(self, exc: OSError, name: str) -> None:
        self.levels[-1].stays = True
        self.failures += 1
        if self.first is not None:
            return
        path = self.descent.path(name)
        if exc.errno == errno.EBUSY:
            exc = MountPoint(path)
        elif exc.errno == errno.EPERM and protection_of(self.descent.fileno()):
            # The flags of the parent are not cleared, because it is kept.
            exc.strerror = (
                "the directory it is in is immutable or append-only (chattr -i -a lifts it)"
            )
        exc.filename = path
        self.first = exc


def _unlink(directory: int, name: str) -> bool:
    """Remove anything but a directory; return False for a directory."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        return False
    except PermissionError as exc:
        kind = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        if stat.S_ISDIR(kind):
            return False  # the answer of POSIX and some network file systems for a directory
        if not stat.S_ISREG(kind):
            raise
        _unlink_protected(directory, name, exc)
    return True


def _unlink_protected(directory: int, name: str, refusal: PermissionError) -> None:
    fd = os.open(name, _OPEN_FILE, dir_fd=directory)
    try:
        had = clear_protection(fd)
        if not had:
            raise refusal
        try:
            os.unlink(name, dir_fd=directory)
        finally:
            if os.fstat(fd).st_nlink:
                with contextlib.suppress(OSError):
                    protect(fd, had)
    finally:
        os.close(fd)


def _rmdir(directory: int, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=directory)
