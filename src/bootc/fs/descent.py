"""The way from a directory down into its tree, for walks of any depth.

Directories may be nested deeper than Python's limit of nested calls, and deeper than a process may
open files. Therefore a walk is a loop, and a :class:`Descent` keeps only the last directories of
the way open. When the walk comes back to an earlier one, it opens this directory again as ``..``.

Promises: a directory that is opened again is the same one, or the walk ends with an error. No
symlink is followed. With ``cross_mounts=False`` the walk enters no mount below its top, not even a
bind mount of the same file system.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import Self

from bootc.kernel import files
from bootc.kernel.proc import mount_id

#: The maximum number of open directories of the way, not counting the top.
_HELD = 64
#: A message shows only this many names, the last ones, of a path.
_SHOWN_NAMES = 128
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class MountPoint(OSError):
    """A walk that stays in one file system met a mount point."""

    def __init__(self, path: str) -> None:
        text = "something is mounted on it; unmount that first (findmnt lists what is mounted)"
        super().__init__(errno.EBUSY, text, path)


class Descent:
    """The directories from a top to where a walk is. Use it as a context manager.

    Args:
        top: Descriptor of the directory where the walk begins; it belongs to the caller.
        path: How messages name that directory.
        cross_mounts: Enter mounts below it.
        max_depth: The maximum number of nested directories, including the top.
    """

    __slots__ = ("_cross_mounts", "_fds", "_identities", "_max_depth", "_names", "top_path")

    def __init__(
        self, top: int, path: str, *, cross_mounts: bool = True, max_depth: int | None = None
    ) -> None:
        self.top_path = path
        self._cross_mounts = cross_mounts
        self._max_depth = max_depth
        #: Each directory of the way; -1 for one that is closed until the walk comes back.
        self._fds = [top]
        self._names: list[str] = []
        self._identities = [_identity(top)]

    def fileno(self) -> int:
        """Return the descriptor of the current directory, still owned by the descent."""
        return self._fds[-1]

    @property
    def name(self) -> str:
        """The name of the current directory. The top has none."""
        return self._names[-1]

    @property
    def depth(self) -> int:
        """The number of directories between the top and the current one."""
        return len(self._names)

    def relpath(self, name: str | None = None) -> str:
        """Return the path of an entry of the current directory, for messages.

        The path is relative to the top. Of a very long path this is only the end.

        Args:
            name: The entry, or None for the current directory itself.
        """
        shown = self._names[-_SHOWN_NAMES:]
        if self.depth > _SHOWN_NAMES:
            shown.insert(0, "...")
        if name is not None:
            shown.append(name)
        return "/".join(shown) or "."

    def whole_relpath(self, name: str) -> str:
        """Return the whole path of an entry of the current directory, relative to the top.

        It may be longer than the kernel accepts.
        """
        return "/".join([*self._names, name])

    def path(self, name: str | None = None) -> str:
        """Return :meth:`relpath` with the path of the top in front."""
        relpath = self.relpath(name)
        return self.top_path if relpath == "." else f"{self.top_path.rstrip('/')}/{relpath}"

    def enter(self, name: str) -> int:
        """Go into a directory of the current one, and return its descriptor.

        Raises:
            MountPoint: something is mounted on it, and ``cross_mounts`` is false.
            OSError: it cannot be opened; ENAMETOOLONG if it is nested too deeply.
        """
        if self._max_depth is not None and self.depth + 1 >= self._max_depth:
            text = f"directories are nested deeper than {self._max_depth}"
            raise OSError(errno.ENAMETOOLONG, text, self.path(name))
        try:
            fd = _open(self.fileno(), name) if self._cross_mounts else self._open_same_mount(name)
        except OSError as exc:
            exc.filename = self.path(name)
            raise
        self._fds.append(fd)
        self._names.append(name)
        self._identities.append(_identity(fd))
        oldest = len(self._fds) - 1 - _HELD
        if oldest > 0:
            self._close(oldest)
        return fd

    def leave(self) -> None:
        """Go back to the directory above.

        Raises:
            OSError: ESTALE if another process has moved the current directory.
        """
        assert self.depth > 0, "the walk does not leave its top"
        if self._fds[-2] < 0:
            self._fds[-2] = self._reopened_parent()
        self._close(-1)
        self._fds.pop()
        self._names.pop()
        self._identities.pop()

    def close(self) -> None:
        """Close all directories except the top."""
        for index in range(1, len(self._fds)):
            self._close(index)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open_same_mount(self, name: str) -> int:
        return open_same_mount(self.fileno(), name, self.path(name))

    def _close(self, index: int) -> None:
        fd, self._fds[index] = self._fds[index], -1
        if fd >= 0:
            os.close(fd)

    def _reopened_parent(self) -> int:
        fd = _open(self.fileno(), "..")
        if _identity(fd) != self._identities[-2]:
            os.close(fd)
            raise OSError(errno.ESTALE, "it was moved while its tree was walked", self.path())
        return fd


def open_same_mount(parent: int, name: str, path: str) -> int:
    """Open a directory unless something is mounted on it, and return its descriptor.

    This includes bind mounts of the same file system, which have the same device number.

    Args:
        parent: Descriptor of its parent directory.
        name: One component.
        path: How messages name it.

    Raises:
        MountPoint: something is mounted on it.
        OSError: it cannot be opened.
    """
    try:
        return files.openat2(parent, name, _OPEN_DIRECTORY, 0, files.RESOLVE_NO_XDEV)
    except OSError as exc:
        if exc.errno == errno.EXDEV:
            raise MountPoint(path) from None
        if exc.errno != errno.ENOSYS:
            exc.filename = path
            raise
    # openat2 is missing before Linux 5.6, and some filters of system calls block it.
    fd = _open(parent, name)
    if mount_id(fd) != mount_id(parent):
        os.close(fd)
        raise MountPoint(path)
    return fd


def _open(parent: int, name: str) -> int:
    return os.open(name, _OPEN_DIRECTORY, dir_fd=parent)


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino
