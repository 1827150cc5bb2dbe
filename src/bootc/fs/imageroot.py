"""The root of an image as a directory: an unpacked or mounted image, or the root of a build.

Promises: symlinks are followed as if the directory were ``/``. An absolute symlink stays inside,
and no path leads out (``openat2`` with ``RESOLVE_IN_ROOT``). Nothing is written.

The programs of the image will see its files in the same way. :class:`bootc.fs.dir.Dir` instead
refuses symlinks that leave the directory. It is for directories that bootc lays out.

A path is relative, and ``..`` in it is a bug of the caller. The result for a missing file is None,
also if a file is in the place of a parent directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from bootc.fs.dir import Dir, open_regular_by, read_all
from bootc.kernel import files

_ABSENT = (errno.ENOENT, errno.ENOTDIR)
#: The kernel follows at most this many links in one path.
_MAX_LINKS = 40


class ImageRoot:
    """The root directory of an image. Close it, or use it as a context manager."""

    __slots__ = ("dir",)

    def __init__(self, directory: Dir) -> None:
        self.dir = directory

    @classmethod
    def open(cls, path: str) -> Self:
        """Open a root by host path."""
        return cls(Dir.open(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.dir.close()

    @property
    def is_running(self) -> bool:
        """Whether this is the root directory of this process, as in ``RUN`` of a build."""
        return os.path.samestat(os.fstat(self.dir.fileno()), os.stat("/"))

    def stat(self, path: str) -> os.stat_result | None:
        """Return ``lstat`` of a path; links on the way are followed, the last one is not."""
        with self._parent(path) as found:
            if found is None:
                return None
            parent, name = found
            try:
                return os.stat(name, dir_fd=parent, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def readlink(self, path: str) -> str | None:
        """Return the target of a symlink.

        Raises:
            OSError: also with EINVAL if it is not a symlink.
        """
        with self._parent(path) as found:
            if found is None:
                return None
            parent, name = found
            try:
                return os.readlink(name, dir_fd=parent)
            except FileNotFoundError:
                return None

    def open_dir(self, path: str, *, same_mount: bool = False) -> Dir | None:
        """Open a directory, following links.

        Args:
            path: The directory.
            same_mount: Return None for a mount point and for directories behind one.

        Raises:
            NotADirectoryError: it is not a directory.
        """
        flags = os.O_RDONLY | os.O_DIRECTORY
        try:
            fd = self._open(path, flags, files.RESOLVE_NO_XDEV if same_mount else 0)
        except OSError as exc:
            if exc.errno == errno.ENOENT or (same_mount and exc.errno == errno.EXDEV):
                return None
            raise
        return Dir(fd, self._path_of(path))

    def open_regular(self, path: str) -> int | None:
        """Open a regular file for reading, following links, and return its descriptor.

        Raises:
            OSError: also with EINVAL or EISDIR if it is not a regular file.
        """
        try:
            return open_regular_by(lambda flags: self._open(path, flags, 0), self._path_of(path))
        except OSError as exc:
            if exc.errno in _ABSENT:
                return None
            raise

    def read(self, path: str, limit: int) -> bytes | None:
        """Read a regular file of at most ``limit`` bytes, following links.

        Raises:
            OSError: also with EFBIG if it is larger, EINVAL or EISDIR if it is not a regular file.
        """
        fd = self.open_regular(path)
        if fd is None:
            return None
        try:
            return read_all(fd, self._path_of(path), limit)
        finally:
            os.close(fd)

    def resolve(self, path: str) -> str | None:
        """Return the path without links that a path leads to, relative to the root.

        Missing components are kept. The result is None if the links form a loop.
        """
        pending = [part for part in path.split("/") if part not in ("", ".")][::-1]
        done: list[str] = []
        links = 0
        while pending:
            name = pending.pop()
            if name == "..":
                done = done[:-1]
                continue
            here = "/".join([*done, name])
            info = self.stat(here)
            if info is None or not stat.S_ISLNK(info.st_mode):
                done.append(name)
                continue
            links += 1
            target = self.readlink(here)
            if links > _MAX_LINKS or target is None:
                return None
            if target.startswith("/"):
                done = []
            pending += [part for part in target.split("/") if part not in ("", ".")][::-1]
        return "/".join(done)

    @contextlib.contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str] | None]:
        """Yield a descriptor of the last component's directory, and that component."""
        above, _, name = path.rpartition("/")
        try:
            fd = self._open(above or ".", os.O_PATH | os.O_DIRECTORY, 0)
        except OSError as exc:
            if exc.errno not in _ABSENT:
                raise
            yield None
            return
        try:
            yield fd, name
        except OSError as exc:
            exc.filename = self._path_of(path)
            raise
        finally:
            os.close(fd)

    def _open(self, path: str, flags: int, resolve: int) -> int:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"path {path!r} is not one below a root")
        resolve |= files.RESOLVE_IN_ROOT
        try:
            return files.openat2(self.dir.fileno(), path, flags | os.O_CLOEXEC, 0, resolve)
        except OSError as exc:
            exc.filename = self._path_of(path)
            raise

    def _path_of(self, path: str) -> str:
        return f"{self.dir.path.rstrip('/')}/{path}"
