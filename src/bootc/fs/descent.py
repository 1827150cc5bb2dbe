"""The way from a directory down into its tree, for walks of any depth.

Directories may be nested deeper than Python's limit of nested calls, and deeper than a
process may open files. So a walk is a loop, and a
:class:`Descent` keeps only the last directories of the way open. It opens an earlier one
again through ``..`` when the walk comes back to it.

Promises: a directory that is opened again is the one that was left, or the walk ends. No
symlink is followed. With ``cross_mounts=False`` the walk never enters anything that is
mounted below its top, bind mounts of the same file system included.
"""

from __future__ import annotations

import errno
import os
from types import TracebackType
from typing import Self

from bootc.kernel import files
from bootc.kernel.proc import mount_id

#: How many directories of the way are open at most, besides the top.
_HELD = 64
#: Messages show the last names of a longer path.
_SHOWN_NAMES = 128
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


class MountPoint(OSError):
    """Something is mounted in a tree where only the tree's own file system is wanted."""

    def __init__(self, path: str) -> None:
        text = "something is mounted on it; unmount that first (findmnt lists what is mounted)"
        super().__init__(errno.EBUSY, text, path)


class Descent:
    """The directories from a top to where a walk is. Use it as a context manager.

    Args:
        top: Descriptor of the directory where the walk begins; it belongs to the caller.
        path: How messages name that directory.
        cross_mounts: Enter what is mounted below it.
        max_depth: How many directories may lie below each other, the top included.
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
        """The name of the current directory, which is not the top."""
        return self._names[-1]

    @property
    def depth(self) -> int:
        """The number of directories between the top and the current one."""
        return len(self._names)

    def relpath(self, name: str | None = None) -> str:
        """Return the path of an entry of the current directory, for messages.

        It is relative to the top, and only the end of it where it is very long.

        Args:
            name: The entry; the current directory itself if left out.
        """
        shown = self._names[-_SHOWN_NAMES:]
        if self.depth > _SHOWN_NAMES:
            shown.insert(0, "...")
        if name is not None:
            shown.append(name)
        return "/".join(shown) or "."

    def whole_relpath(self, name: str) -> str:
        """Return the path of an entry of the current directory, to be used from the top.

        It may be longer than the kernel takes.
        """
        return "/".join([*self._names, name])

    def path(self, name: str | None = None) -> str:
        """Return the same with the path of the top in front."""
        relpath = self.relpath(name)
        return self.top_path if relpath == "." else f"{self.top_path.rstrip('/')}/{relpath}"

    def enter(self, name: str) -> int:
        """Go into a directory of the current one, and return its descriptor.

        Raises:
            MountPoint: something is mounted on it, and mounts are not to be crossed.
            OSError: it cannot be opened; ENAMETOOLONG where it is nested too deeply.
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
            OSError: ESTALE when the current directory has been moved meanwhile.
        """
        assert self.depth > 0, "the walk does not leave its top"
        if self._fds[-2] < 0:
            self._fds[-2] = self._reopened_parent()
        self._close(-1)
        self._fds.pop()
        self._names.pop()
        self._identities.pop()

    def close(self) -> None:
        """Close all directories but the top."""
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

    Bind mounts of the same file system count, which device numbers do not tell.

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
    # Linux before 5.6, and filters of system calls that do not know openat2.
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
