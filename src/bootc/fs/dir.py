"""A directory held open by descriptor, and the operations on files below it.

Promises: no path given to a :class:`Dir` leads outside it. ``openat2`` with ``RESOLVE_BENEATH``
resolves a path of several components: it follows a symlink in the middle, but never out of the
directory. The last component is never followed (``O_NOFOLLOW``). Absolute paths and ``..`` are a
bug of the caller and raise ``ValueError``. New files and directories get exactly the given mode,
whatever the umask is.

Names are ``str``. Bytes that are not UTF-8 are encoded as by :func:`os.fsdecode`.

>>> with Dir.open("/usr") as usr, usr.open_dir("lib") as lib:
...     lib.path
'/usr/lib'
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from bootc.kernel import files

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK_BYTES = 1 << 16


class Dir:
    """A directory held open by descriptor. Close it, or use it as a context manager.

    Args:
        fd: A descriptor of a directory (not ``O_PATH``); it belongs to the Dir from now on.
        path: How messages name the directory; None for the path that the kernel knows.
    """

    __slots__ = ("_fd", "path")

    def __init__(self, fd: int, path: str | None = None) -> None:
        self._fd = fd
        self.path = _path_of(fd) if path is None else path

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a directory by host path. Only this method follows all symlinks."""
        return cls(os.open(path, _OPEN_DIRECTORY), os.fspath(path))

    def fileno(self) -> int:
        """Return the descriptor, still owned by this object."""
        if self._fd < 0:
            raise ValueError(f"directory {self.path} is closed")
        return self._fd

    def close(self) -> None:
        """Close the descriptor. Closing twice is allowed."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            warnings.warn(f"unclosed directory {self.path}", ResourceWarning, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        return f"Dir({self.path!r})"

    def open_dir(self, relpath: str) -> Dir:
        """Open a directory below; ``.`` gives a second descriptor of this one."""
        return Dir(self._open(relpath, _OPEN_DIRECTORY | os.O_NOFOLLOW), self._join(relpath))

    def open_same_mount(self, name: str) -> Dir:
        """Open an entry of this directory, unless something is mounted on it.

        Raises:
            MountPoint: something is mounted on it.
        """
        # Here and below: most commands do not need these modules, and start faster without them.
        from bootc.fs import descent

        (name,) = _components(name)
        return Dir(descent.open_same_mount(self.fileno(), name, self._join(name)), self._join(name))

    def ensure_dir(self, relpath: str, mode: int = 0o755) -> Dir:
        """Open a directory below, making every missing component with ``mode``."""
        current = self.open_dir(".")
        for name in _components(relpath):
            with current:
                try:
                    below = current.open_dir(name)
                except FileNotFoundError:
                    # Another process may make it at the same time.
                    with contextlib.suppress(FileExistsError):
                        current.mkdir(name, mode)
                    below = current.open_dir(name)
            current = below
        return current

    def open_file(self, relpath: str, flags: int = os.O_RDONLY, mode: int = 0o644) -> int:
        """Open a file below and return its descriptor (``O_CLOEXEC | O_NOFOLLOW``).

        ``mode`` is used with ``O_CREAT`` or ``O_TMPFILE``. A file that is certainly new
        (``O_EXCL``, ``O_TMPFILE``) gets exactly this mode. Otherwise the umask applies.
        """
        unnamed = flags & os.O_TMPFILE == os.O_TMPFILE
        creates = unnamed or flags & os.O_CREAT
        fd = self._open(relpath, flags | os.O_CLOEXEC | os.O_NOFOLLOW, mode if creates else 0)
        if unnamed or (flags & os.O_CREAT and flags & os.O_EXCL):
            try:
                os.fchmod(fd, mode)
            except BaseException:
                os.close(fd)
                raise
        return fd

    def open_regular(self, relpath: str) -> int:
        """Open a regular file for reading, as :func:`open_regular`, but follow no symlink.

        Raises:
            OSError: also with EINVAL or EISDIR if it is not a regular file, ELOOP if a symlink.
        """

        def open_(flags: int) -> int:
            return self._open(relpath, flags | os.O_CLOEXEC | os.O_NOFOLLOW)

        return open_regular_by(open_, self._join(relpath))

    def read_bytes(self, relpath: str, limit: int | None = None) -> bytes:
        """Read a whole regular file.

        Raises:
            OSError: as :meth:`open_regular`; EFBIG if it is larger than ``limit`` bytes.
        """
        with open(self.open_regular(relpath), "rb", buffering=0) as file:
            return read_all(file.fileno(), self._join(relpath), limit)

    def read_chunks(self, relpath: str) -> Iterator[bytes]:
        """Yield the content of a regular file of any size, in pieces.

        Raises:
            OSError: as :meth:`open_regular`.
        """
        path = self._join(relpath)
        with open(self.open_regular(relpath), "rb", buffering=0) as file:
            while True:
                with naming(path):
                    chunk = file.read(_CHUNK_BYTES)
                if not chunk:
                    return
                yield chunk

    def exists(self, relpath: str) -> bool:
        """Return whether there is a file of any kind of that name; a dangling symlink counts."""
        try:
            self.stat(relpath)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_file(self, relpath: str) -> bool:
        """Return whether there is a regular file of that name; a symlink is not one."""
        try:
            return stat.S_ISREG(self.stat(relpath).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def stat(self, relpath: str) -> os.stat_result:
        """Return ``lstat`` of an entry."""
        with self.parent_of(relpath) as (fd, name):
            return os.stat(name, dir_fd=fd, follow_symlinks=False)

    def names(self, limit: int | None = None) -> list[str]:
        """Return the names of all entries, sorted.

        Raises:
            OSError: EFBIG if there are more than ``limit``.
        """
        with os.scandir(self.fileno()) as entries:
            names = [entry.name for entry in itertools.islice(entries, limit)]
            if limit is not None and next(entries, None) is not None:
                raise OSError(errno.EFBIG, f"holds more than {limit} entries", self.path)
        return sorted(names)

    def mkdir(self, name: str, mode: int = 0o755) -> None:
        """Make a directory with exactly this mode."""
        with self.parent_of(name) as (fd, last):
            os.mkdir(last, 0o700, dir_fd=fd)
            # By descriptor: a user who may write to the parent can put a symlink in its place.
            made = os.open(last, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            try:
                os.fchmod(made, mode)
            finally:
                os.close(made)

    def symlink(self, target: str, name: str) -> None:
        """Make a symlink called ``name`` to ``target``."""
        with self.parent_of(name) as (fd, last):
            os.symlink(target, last, dir_fd=fd)

    def readlink(self, relpath: str) -> str:
        """Return the target of a symlink."""
        with self.parent_of(relpath) as (fd, name):
            return os.readlink(name, dir_fd=fd)

    def unlink(self, relpath: str) -> None:
        """Remove a file or symlink."""
        with self.parent_of(relpath) as (fd, name):
            os.unlink(name, dir_fd=fd)

    def rename(self, old: str, new: str) -> None:
        """Rename within this directory's tree; ``new`` is replaced if it exists."""
        with self.parent_of(old) as (old_fd, old_name), self.parent_of(new) as (new_fd, new_name):
            os.rename(old_name, new_name, src_dir_fd=old_fd, dst_dir_fd=new_fd)

    def remove_tree(self, name: str) -> None:
        """Remove an entry and all below it, as :func:`bootc.fs.removal.remove_tree` promises.

        Raises:
            MountPoint: something is mounted there or below. Everything else is removed.
            OSError: an entry could not be removed; the error names it. All others are removed.
        """
        from bootc.fs.removal import remove_tree

        with self.parent_of(name) as (fd, last):
            parent = os.open(".", _OPEN_DIRECTORY, dir_fd=fd)
        try:
            remove_tree(parent, last, os.path.dirname(self._join(name)))
        finally:
            os.close(parent)

    def sync(self) -> None:
        """Write all cached data of the file system to its disk (``syncfs``)."""
        with naming(self.path):
            files.syncfs(self.fileno())

    @contextlib.contextmanager
    def parent_of(self, relpath: str) -> Iterator[tuple[int, str]]:
        """Yield the descriptor of the last component's directory, and that component.

        This is for system calls that this class does not wrap. An ``OSError`` that leaves the
        block names the path, and says if a flag of chattr(1) is the reason.
        """
        *above, name = _components(relpath) or ["."]
        try:
            if not above:
                with _naming_protection(self.fileno(), name, self._join(relpath)):
                    yield self.fileno(), name
                return
            fd = files.openat2(
                self.fileno(),
                "/".join(above),
                os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC,
                0,
                files.RESOLVE_BENEATH,
            )
            try:
                with _naming_protection(fd, name, self._join(relpath)):
                    yield fd, name
            finally:
                os.close(fd)
        except _Protected:
            raise  # it already names the path that the flag protects
        except OSError as exc:
            _set_path(exc, self._join(relpath))
            raise

    def _join(self, relpath: str) -> str:
        return self.path if relpath == "." else f"{self.path.rstrip('/')}/{relpath}"

    def _open(self, relpath: str, flags: int, mode: int = 0) -> int:
        parts = _components(relpath)
        try:
            if len(parts) <= 1:
                return os.open(parts[0] if parts else ".", flags, mode, dir_fd=self.fileno())
            return files.openat2(self.fileno(), "/".join(parts), flags, mode, files.RESOLVE_BENEATH)
        except OSError as exc:
            _set_path(exc, self._join(relpath))
            raise


def same_content(one: Dir, path: str, other: Dir, other_path: str) -> bool:
    """Tell whether two files exist and have the same content.

    Raises:
        OSError: a file exists and cannot be read.
    """
    try:
        if one.stat(path).st_size != other.stat(other_path).st_size:
            return False
        pieces: Iterable[tuple[bytes, bytes]] = itertools.zip_longest(
            one.read_chunks(path), other.read_chunks(other_path), fillvalue=b""
        )
        return all(piece == other_piece for piece, other_piece in pieces)
    except (FileNotFoundError, NotADirectoryError):
        return False


def open_regular(path: str, *, dir_fd: int | None = None) -> int:
    """Open a regular file of another program for reading. Symlinks are followed.

    No other kind of file is opened: opening a FIFO waits for a writer, and opening some devices
    makes them act.

    Args:
        path: The file. If it is relative, it starts at ``dir_fd``.
        dir_fd: A directory, or None for the working directory.

    Returns:
        A descriptor, which belongs to the caller.

    Raises:
        OSError: also with EINVAL or EISDIR, if it is not a regular file.
    """

    def open_(flags: int) -> int:
        return os.open(path, flags | os.O_CLOEXEC, dir_fd=dir_fd)

    return open_regular_by(open_, path)


def open_regular_by(open_: Callable[[int], int], path: str) -> int:
    """Open a regular file by any way of opening: look at it with ``O_PATH``, and only then open it.

    Args:
        open_: Opens the file with these flags.
        path: How messages name the file.

    Raises:
        OSError: also with EINVAL, EISDIR or ELOOP if it is not a regular file.
    """
    path_fd = open_(os.O_PATH)
    try:
        _require_regular(path_fd, path)
    finally:
        os.close(path_fd)
    # If a FIFO has replaced the file in between, O_NONBLOCK does not wait for its writer.
    fd = open_(os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _require_regular(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _require_regular(fd: int, path: str) -> None:
    mode = os.fstat(fd).st_mode
    if stat.S_ISLNK(mode):
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file", path)


def read_all(fd: int, path: str, limit: int | None = None) -> bytes:
    """Read a regular file from its start to its end.

    Raises:
        OSError: also with EFBIG if it is larger than ``limit``, EINVAL if not a regular file.
    """
    with naming(path):
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if limit is not None and info.st_size > limit:
            raise OSError(errno.EFBIG, f"file is larger than {limit} bytes")
        chunks = []
        offset = 0
        # The size is a hint (/proc and /sys say 0): a file ends where a read returns nothing.
        while chunk := os.pread(fd, max(info.st_size + 1 - offset, _CHUNK_BYTES), offset):
            chunks.append(chunk)
            offset += len(chunk)
            if limit is not None and offset > limit:
                raise OSError(errno.EFBIG, f"file is larger than {limit} bytes")
        return b"".join(chunks)


@contextlib.contextmanager
def naming(path: str) -> Iterator[None]:
    """Let an ``OSError`` of a call that takes a descriptor name the file."""
    try:
        yield
    except OSError as exc:
        if exc.filename is None:
            exc.filename = path
        raise


def _set_path(exc: OSError, path: str) -> None:
    """Let an error name a path."""
    exc.filename = path
    if exc.errno == errno.EXDEV and exc.filename2 is None:
        # RESOLVE_BENEATH fails with EXDEV. Its text "Invalid cross-device link" would mislead.
        exc.strerror = "a symlink on the way leads outside"


class _Protected(PermissionError):
    """The kernel refuses a change because of a flag that chattr(1) sets."""


@contextlib.contextmanager
def _naming_protection(parent_fd: int, name: str, path: str) -> Iterator[None]:
    """Let an EPERM say if the entry, or the directory it is in, is immutable or append-only."""
    try:
        yield
    except PermissionError as exc:
        if exc.errno != errno.EPERM or isinstance(exc, _Protected):
            raise
        for entry, what in ((name, "it"), (".", "the directory it is in")):
            if _is_protected(parent_fd, entry):
                text = f"{what} is immutable or append-only (chattr -i -a lifts it)"
                raise _Protected(errno.EPERM, text, path) from exc
        raise


def _is_protected(parent_fd: int, name: str) -> bool:
    from bootc.fs.protection import protection_of

    with contextlib.suppress(OSError):
        # Opening a device can make it act.
        kind = os.stat(name, dir_fd=parent_fd, follow_symlinks=False).st_mode
        if stat.S_ISREG(kind) or stat.S_ISDIR(kind):
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=parent_fd)
            try:
                return protection_of(fd) != 0
            finally:
                os.close(fd)
    return False


def _components(relpath: str) -> list[str]:
    if relpath.startswith("/"):
        raise ValueError(f"absolute path {relpath!r} below a directory")
    parts = [part for part in relpath.split("/") if part not in ("", ".")]
    if ".." in parts or not relpath:
        raise ValueError(f"path {relpath!r} leads out of a directory")
    return parts


def _path_of(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return f"fd {fd}"
