"""Writes and replaces files atomically.

Promises: a reader sees the old or the new content, never a part of it. With
``durable=True`` the new content also survives a power cut after the call has returned. A
crash leaves at worst a file whose name starts with one of the prefixes below, which every
reader of these directories ignores.

FAT has neither hard links nor ``O_TMPFILE``: :func:`write_file` needs only
rename and fsync, and :class:`Tmpfile` falls back to a named file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from bootc.fs.dir import Dir, naming
from bootc.kernel import files

FILE_PREFIX = ".tmp-file-"
OBJECT_PREFIX = ".tmp-object-"
SYMLINK_PREFIX = ".symlink-"

_ATTEMPTS = 16
_COPY_BYTES = 1 << 30
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EISDIR)

_T = TypeVar("_T")


def write_file(
    directory: Dir,
    name: str,
    data: bytes,
    *,
    mode: int = 0o644,
    like: int | None = None,
    durable: bool,
) -> None:
    """Make ``name`` hold ``data``, replacing what was there.

    Args:
        directory: Where the file belongs.
        name: One component.
        data: The whole content.
        mode: Permission bits of the file.
        like: A file whose owner, mode and extended attributes the file gets.
        durable: Return only when file and name are on the disk.
    """

    def create(temporary: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        return directory.open_file(temporary, flags, mode)

    path = f"{directory.path}/{name}"
    temporary, fd = _with_temporary_name(FILE_PREFIX, create)
    try:
        with open(fd, "wb", buffering=0) as file:
            with naming(path):
                if like is not None:
                    _copy_metadata(like, file.fileno())
                write_all(file.fileno(), data)
                if durable:
                    os.fsync(file.fileno())
            directory.rename(temporary, name)
            if durable:
                # On FAT a sync of the directory writes only the new name. A sync of the file
                # writes the rest of its directory entry.
                with naming(path):
                    os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            directory.unlink(temporary)
        raise
    if durable:
        with naming(directory.path):
            os.fsync(directory.fileno())


def write_stream(directory: Dir, name: str, chunks: Iterable[bytes]) -> None:
    """Write a large file in pieces, replacing what was there. It is on the disk afterwards.

    This suits FAT, which has neither journal nor checksums: the file is complete when it has its
    final name, and was compared with what the disk has. If the chunks end in an exception, or the
    disk has another content, the file is removed. After a power cut the unfinished file has a fixed
    temporary name, which the next call for the same name removes. Therefore repeated failures do
    not fill the partition.

    Args:
        directory: Where the file belongs.
        name: One component.
        chunks: The content in pieces.

    Raises:
        NotOnDisk: the disk has another content.
        OSError: writing failed.
    """
    with staged_stream(directory, name, chunks) as commit:
        commit()


@contextlib.contextmanager
def staged_stream(
    directory: Dir, name: str, chunks: Iterable[bytes]
) -> Iterator[Callable[[], None]]:
    """Write a large file as :func:`write_stream`, and let the caller decide when it gets its name.

    A caller with several files stages all of them first. Most failures happen then, and nothing
    has changed. If the block ends without the call, the file is removed.

    Args:
        directory: Where the file belongs.
        name: One component.
        chunks: The content in pieces.

    Yields:
        A function that gives the file its name, which is on the disk afterwards.
    """
    # Few programs write large files.
    from bootc.fs.readback import Written

    path = f"{directory.path}/{name}"
    temporary = f"{FILE_PREFIX}{name}"
    written = Written()
    with contextlib.suppress(FileNotFoundError):
        directory.unlink(temporary)
    fd = directory.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    committed = False
    with open(fd, "wb", buffering=0) as target:

        def commit() -> None:
            nonlocal committed
            directory.rename(temporary, name)
            committed = True
            with naming(path):
                # On FAT a sync of the directory writes only the new name. A sync of the file
                # writes the rest of its directory entry.
                os.fsync(target.fileno())
            with naming(directory.path):
                os.fsync(directory.fileno())

        try:
            for number, chunk in enumerate(chunks):
                with naming(path):
                    if number == 1:
                        # The beginning and the name are on the disk before most of the content.
                        # The next check of FAT turns clusters without a name into a file
                        # FSCK0000.REC, which nothing would ever remove.
                        os.fsync(target.fileno())
                        os.fsync(directory.fileno())
                    write_all(target.fileno(), chunk)
                written.update(chunk)
            with naming(path):
                os.fsync(target.fileno())
                with open(directory.open_file(temporary, os.O_RDONLY), "rb", buffering=0) as file:
                    written.check(file.fileno(), path)
            yield commit
        finally:
            if not committed:
                with contextlib.suppress(OSError):
                    directory.unlink(temporary)


def replace_symlink(directory: Dir, relpath: str, target: str) -> None:
    """Make ``relpath`` a symlink to ``target``, replacing an older link.

    The temporary link is in ``directory`` itself and not beside ``relpath``: under ``refs/``
    a leftover would count as a reference.

    Raises:
        OSError: also with EINVAL, if ``relpath`` exists and is not a symlink.
    """
    try:
        directory.symlink(target, relpath)
        return
    except FileExistsError:
        if directory.readlink(relpath) == target:
            return
    temporary, _ = _with_temporary_name(
        SYMLINK_PREFIX, lambda name: directory.symlink(target, name)
    )
    try:
        directory.rename(temporary, relpath)
    except BaseException:
        with contextlib.suppress(OSError):
            directory.unlink(temporary)
        raise


def exchange(directory: Dir, a: str, b: str) -> None:
    """Exchange two entries of a directory in one step; both must exist."""
    with directory.parent_of(a) as (fd, one), directory.parent_of(b) as (_, other):
        files.renameat2(fd, one, fd, other, files.RENAME_EXCHANGE)


class Tmpfile:
    """A file that has no name yet: write it, then :meth:`publish` it.

    Use it as a context manager. At the end it removes a file that was not published.
    """

    __slots__ = ("_directory", "_fd", "_name")

    def __init__(self, directory: Dir, fd: int, name: str | None) -> None:
        self._directory = directory
        self._fd = fd
        self._name = name  # set when the file system cannot make nameless files

    @classmethod
    def create(cls, directory: Dir, mode: int = 0o644) -> Self:
        """Make an empty file in the file system of ``directory``, which must outlive it."""
        try:
            return cls(directory, directory.open_file(".", os.O_RDWR | os.O_TMPFILE, mode), None)
        except OSError as exc:
            if exc.errno not in _NO_TMPFILE:
                raise
        return cls.create_named(directory, mode)

    @classmethod
    def create_named(cls, directory: Dir, mode: int = 0o644) -> Self:
        """Make an empty file with a temporary name, for file systems without ``O_TMPFILE``."""

        def create(name: str) -> int:
            return directory.open_file(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)

        name, fd = _with_temporary_name(OBJECT_PREFIX, create)
        return cls(directory, fd, name)

    @classmethod
    def link(cls, directory: Dir, fd: int) -> Self:
        """Give a file of the same file system a second, temporary name, and open it read-only.

        Raises:
            OSError: also with EXDEV or EPERM, if the file system cannot make the link.
        """
        path = f"/proc/self/fd/{fd}"
        read_only = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            name, _ = _with_temporary_name(
                OBJECT_PREFIX,
                lambda name: os.link(
                    path, name, dst_dir_fd=directory.fileno(), follow_symlinks=True
                ),
            )
        except BaseException:
            os.close(read_only)
            raise
        return cls(directory, read_only, name)

    def fileno(self) -> int:
        """Return the descriptor: writable until :meth:`reopen`, read-only after."""
        if self._fd < 0:
            raise ValueError("temporary file is closed")
        return self._fd

    @property
    def is_named(self) -> bool:
        """Whether it has a temporary name, because the file system has no nameless files."""
        return self._name is not None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append ``data``, all of it."""
        write_all(self.fileno(), data)

    def reopen(self) -> int:
        """Replace the writable descriptor by a read-only one. Return it; it stays owned here.

        fs-verity can be enabled only on files that nobody has open for writing.
        """
        read_only = os.open(f"/proc/self/fd/{self.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
        os.close(self._fd)
        self._fd = read_only
        return read_only

    def renew(self) -> None:
        """Move the content into a new writable inode, which no other process has open."""
        source = self.fileno()
        with Tmpfile.create(self._directory, os.fstat(source).st_mode & 0o7777) as fresh:
            offset = 0
            while count := os.sendfile(fresh.fileno(), source, offset, _COPY_BYTES):
                offset += count
            self._fd, fresh._fd = fresh._fd, self._fd
            self._name, fresh._name = fresh._name, self._name

    def publish(self, directory: Dir, relpath: str) -> bool:
        """Give the file its name below ``directory``, which is in the same file system.

        Returns:
            False if the name exists already; then nothing has changed.
        """
        with directory.parent_of(relpath) as (to_fd, name):
            try:
                if self._name is not None:
                    from_fd = self._directory.fileno()
                    files.renameat2(from_fd, self._name, to_fd, name, files.RENAME_NOREPLACE)
                    self._name = None
                else:
                    # With a directory descriptor CPython calls linkat(2) and follows the magic
                    # link; without one it calls link(2), which fails with EXDEV.
                    source = f"/proc/self/fd/{self.fileno()}"
                    os.link(source, name, dst_dir_fd=to_fd, follow_symlinks=True)
            except FileExistsError:
                return False
        return True

    def detach(self) -> Tmpfile:
        """Return a new object that owns the file, and close this one."""
        taken = Tmpfile(self._directory, self.fileno(), self._name)
        self._fd, self._name = -1, None
        return taken

    def replace(self, directory: Dir, relpath: str) -> None:
        """Give the file its name below ``directory``, replacing any file of that name."""
        temporary, published = _with_temporary_name(
            OBJECT_PREFIX, lambda name: self.publish(directory, name)
        )
        if not published:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), temporary)
        try:
            directory.rename(temporary, relpath)
        except BaseException:
            with contextlib.suppress(OSError):
                directory.unlink(temporary)
            raise

    def close(self) -> None:
        """Close the file, and remove it if it was not published. Closing twice is allowed."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)
        if self._name is not None:
            name, self._name = self._name, None
            with contextlib.suppress(FileNotFoundError):
                self._directory.unlink(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _copy_metadata(source: int, target: int) -> None:
    """Give a file the owner, the mode and the extended attributes of another file."""
    found = os.fstat(source)
    # A change of the owner clears bits of the mode.
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, stat.S_IMODE(found.st_mode))
    for name in os.listxattr(source):
        os.setxattr(target, name, os.getxattr(source, name))


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of ``data`` at the position of the descriptor, in as many calls as needed."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _with_temporary_name(prefix: str, make: Callable[[str], _T]) -> tuple[str, _T]:
    """Call ``make`` with random names until one is free."""
    for _ in range(_ATTEMPTS - 1):
        name = prefix + os.urandom(6).hex()
        with contextlib.suppress(FileExistsError):
            return name, make(name)
    name = prefix + os.urandom(6).hex()
    return name, make(name)
