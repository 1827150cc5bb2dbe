"""A composefs repository: creating it, opening it, locking it.

Owns: the directory ``composefs/`` of a physical root, its ``meta.json``, and the
shared lock that keeps garbage collection away while a handle is open
(composefs, "Repository"). Promises:

- Sealed means that ``meta.json`` has fs-verity. A secure repository that is created here is
  sealed from the beginning: the file gets its name only after fs-verity is enabled on it.
- Secure means that the handle never returns an object without fs-verity. A sealed repository
  is secure for every caller; nothing on the disk weakens the caller's demand. With
  ``require_verity``, a repository that is not sealed is refused, or with ``adopt`` opened as
  a secure one: other implementations do not seal theirs (:mod:`bootc.repository.adoption`).

Use::

    with Dir.open("/sysroot") as root, Repository.open(root, require_verity=True) as repository:
        image_ids = repository.images.names()
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from bootc.errors import Error, doing
from bootc.events import Sink, null_sink
from bootc.formats.digest import Algorithm
from bootc.fs.atomic import Tmpfile
from bootc.fs.dir import Dir, read_all
from bootc.fs.lock import lock_exclusive, lock_shared
from bootc.kernel import fsverity
from bootc.repository import layout
from bootc.repository import sealing as sealing
from bootc.repository.images import Images
from bootc.repository.metadata import DEFAULT_EROFS_FORMAT, MAX_BYTES, Metadata, MetadataError
from bootc.repository.objects import Objects
from bootc.repository.sealing import Verity, VerityMissing
from bootc.repository.streams import Streams

#: The way out of a malformed ``meta.json``.
_MAKE_ANOTHER = "remove it, and bootc internals cfs init --ensure makes it again from the objects"


class NotARepository(Error):
    """The directory holds no repository, or an incomplete one."""


class RepositoryExists(Error):
    """There is a repository already, with another configuration."""


class Repository:
    """An open repository. Close it, or use it as a context manager.

    Open one for a process and pass it down: two handles of one process exclude each other
    from garbage collection like two processes do.
    """

    __slots__ = (
        "_store",
        "algorithm",
        "dir",
        "images",
        "metadata",
        "objects",
        "sealed",
        "secure",
        "streams",
    )

    def __init__(
        self,
        directory: Dir,
        store: Dir,
        metadata: Metadata,
        *,
        sealed: bool,
        secure: bool,
        writable: bool,
        verity: Verity,
    ) -> None:
        self.dir = directory
        self.metadata = metadata
        self.algorithm = metadata.algorithm
        #: Whether ``meta.json`` has fs-verity.
        self.sealed = sealed
        #: Whether every object must have fs-verity.
        self.secure = secure
        self._store = store
        self.objects = Objects(
            store, metadata.algorithm, secure=secure, writable=writable, verity=verity
        )
        self.streams = Streams(directory, self.objects)
        self.images = Images(directory, self.objects)

    @classmethod
    def create(
        cls,
        parent: Dir,
        *,
        name: str = layout.REPOSITORY,
        algorithm: Algorithm = Algorithm.SHA512,
        erofs_format: int = DEFAULT_EROFS_FORMAT,
        secure: bool,
        wait: bool = True,
        sink: Sink = null_sink,
        verity: Verity = fsverity,
    ) -> Self:
        """Create the repository of a physical root, or open the existing one for writing.

        Args:
            parent: The parent directory of the repository.
            name: The repository's name in it.
            algorithm: The algorithm of the digests that name objects.
            erofs_format: The default format version of its images.
            secure: Require fs-verity of everything, now and later.
            wait: As for :meth:`open`.
            sink: As for :meth:`open`.
            verity: The kernel's ioctls.

        Raises:
            VerityMissing: the file system has no fs-verity, or the existing repository was
                created without it.
            RepositoryExists: the existing repository has another configuration.
            NotARepository: the directory is not empty and has no ``meta.json``.
            LockedByOther: as :meth:`open`.
        """
        metadata = Metadata.new(algorithm, erofs_format)
        path = f"{parent.path.rstrip('/')}/{name}"
        with doing(f"Creating the repository {path}"):
            with parent.ensure_dir(name, layout.REPOSITORY_MODE) as directory:
                if not directory.exists(layout.META):
                    _require_unused(directory)
                    write_metadata(directory, metadata, secure=secure, verity=verity)
                # Not before this line: until here it may be somebody else's directory.
                os.fchmod(directory.fileno(), layout.REPOSITORY_MODE)
            repository = cls.open(
                parent,
                name=name,
                require_verity=secure,
                writable=True,
                wait=wait,
                sink=sink,
                verity=verity,
            )
            if repository.metadata != metadata:
                repository.close()
                raise RepositoryExists(
                    f"{path} exists with another configuration: {_said(repository.metadata)} "
                    f"and not {_said(metadata)}"
                )
            return repository

    @classmethod
    def open(  # noqa: PLR0913
        cls,
        parent: Dir,
        *,
        name: str = layout.REPOSITORY,
        require_verity: bool,
        adopt: bool = False,
        writable: bool = False,
        lock: bool = True,
        wait: bool = True,
        sink: Sink = null_sink,
        verity: Verity = fsverity,
        infer: Callable[[Dir], tuple[Metadata, bool]] | None = None,
    ) -> Self:
        """Open the repository of a physical root and hold its lock shared.

        Args:
            parent: The parent directory of the repository.
            name: The repository's name in it.
            require_verity: Require fs-verity of every object.
            adopt: Accept a repository that is not sealed, instead of refusing it.
            writable: Objects, streams and images may be added.
            lock: Keep garbage collections away. A reader that needs only what no collection
                removes, for example the running image, needs no lock and delays nobody.
            wait: Wait for a process that holds the exclusive lock, to collect garbage.
            sink: Receives a message if the wait takes more than a moment.
            verity: The kernel's ioctls.
            infer: Describes a repository without ``meta.json``, and tells whether it is secure.
                If left out, the repository is refused.

        Raises:
            NotARepository: there is no repository.
            LockedByOther: another process holds the exclusive lock, and ``wait`` is false.
            VerityMissing: it is not sealed, fs-verity is required, and ``adopt`` is false.
            MetadataError, UnsupportedRepository: its ``meta.json`` cannot be honoured.
            OSError: EROFS or EACCES if ``writable`` and it is not; other errors.
        """
        path = f"{parent.path.rstrip('/')}/{name}"
        with contextlib.ExitStack() as stack, doing(f"Opening the repository {path}"):
            directory = stack.enter_context(_open_directory(parent, name, path))
            assert lock or not writable, "new objects without a reference need the lock"
            if lock:
                lock_shared(directory, wait=wait, sink=sink)
            if infer is not None and not directory.exists(layout.META):
                metadata, sealed = infer(directory)
            else:
                metadata, sealed = _read_metadata(directory, verity)
            if require_verity and not (sealed or adopt):
                raise _not_sealed(path)
            metadata.require_supported(path, writable=writable)
            store = stack.enter_context(_open_store(directory, writable=writable))
            secure = sealed or require_verity
            flags = {"sealed": sealed, "secure": secure, "writable": writable}
            repository = cls(directory, store, metadata, **flags, verity=verity)
            stack.pop_all()
            return repository

    def sync(self) -> None:
        """Write everything done so far to the disk, including references."""
        self.objects.flush()
        with doing(f"Syncing {self.dir.path}"):
            self.dir.sync()

    @contextlib.contextmanager
    def alone(self, *, wait: bool = True, sink: Sink = null_sink) -> Iterator[None]:
        """Hold the exclusive lock during a block, then hold the lock shared again.

        Others may have changed anything before the block began: read the state within it.

        Args:
            wait: Wait until all other processes have closed the repository.
            sink: Receives a message if the wait takes more than a moment.

        Raises:
            LockedByOther: another process has it open, and ``wait`` is false.
            LockedHere: this process has another handle of it.
        """
        try:
            lock_exclusive(self.dir, wait=wait, sink=sink)
            yield
        finally:
            # Also after a refusal, because the shared lock was released first.
            lock_shared(self.dir)

    def close(self) -> None:
        """Release the lock and the directories; closing twice is fine.

        New objects get their names first, unless a ``with`` block ends in an exception.
        """
        try:
            self.objects.flush()
        finally:
            self._store.close()
            self.dir.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.objects.discard()
        self.close()


def _open_directory(parent: Dir, name: str, path: str) -> Dir:
    try:
        return parent.open_dir(name)
    except (FileNotFoundError, NotADirectoryError) as exc:
        raise NotARepository(f"there is no repository {path}") from exc


def _require_unused(directory: Dir) -> None:
    """Refuse a directory with foreign files: creating a repository would change its mode."""
    if directory.exists(layout.OBJECTS):
        raise _headless(directory.path)
    # A new file system has lost+found; an interrupted run may have left temporary files.
    foreign = [n for n in directory.names() if n != "lost+found" and not n.startswith(".tmp-")]
    if foreign:
        raise NotARepository(
            f"{directory.path} is no repository and is not empty",
            hint="name a directory that is empty or does not exist",
        )


def _not_sealed(path: str) -> VerityMissing:
    return VerityMissing(
        f"the repository {path} was made without fs-verity, and fs-verity is required",
        hint="bootc internals cfs --require-verity fsck tells which objects lack it",
    )


def _read_metadata(directory: Dir, verity: Verity) -> tuple[Metadata, bool]:
    """Return the content of ``meta.json``, and whether the file has fs-verity."""
    where = f"{directory.path}/{layout.META}"
    try:
        fd = directory.open_regular(layout.META)
    except FileNotFoundError as exc:
        if directory.exists(layout.OBJECTS):
            raise _headless(directory.path) from exc
        raise NotARepository(f"{directory.path} is no repository: it has no meta.json") from exc
    with open(fd, "rb", buffering=0):
        try:
            metadata = Metadata.parse(read_all(fd, where, MAX_BYTES), where)
        except MetadataError as exc:
            raise MetadataError(exc.message, hint=exc.hint or _MAKE_ANOTHER) from exc
        measured = sealing.measure(fd, verity)
    return metadata, measured is not None and measured[0] == metadata.algorithm.value


def write_metadata(directory: Dir, metadata: Metadata, *, secure: bool, verity: Verity) -> None:
    """Write ``meta.json`` and sync it. An existing file is left alone."""
    with Tmpfile.create(directory) as tmpfile:
        tmpfile.write(metadata.to_bytes())
        os.fsync(tmpfile.fileno())
        if secure:
            try:
                sealing.enable(tmpfile, metadata.algorithm, verity)
            except OSError as exc:
                if exc.errno not in sealing.UNSUPPORTED:
                    raise
                raise sealing.without_verity(directory) from exc
        # Another process may be first: the caller reads and compares the file next.
        tmpfile.publish(directory, layout.META)
    os.fsync(directory.fileno())


def _require_writable(directory: Dir) -> None:
    if os.statvfs(directory.fileno()).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), directory.path)
    if not os.access(".", os.W_OK, dir_fd=directory.fileno(), effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), directory.path)


def _open_store(directory: Dir, *, writable: bool) -> Dir:
    where = f"{directory.path}/{layout.OBJECTS}"
    try:
        if writable:
            _require_writable(directory)
            return directory.ensure_dir(layout.OBJECTS)
        return directory.open_dir(layout.OBJECTS)
    except (NotADirectoryError, FileExistsError) as exc:
        raise NotARepository(
            f"{where} is not a directory",
            hint="put the directory back, or remove what is there and pull the images again",
        ) from exc
    except FileNotFoundError as exc:
        if directory.exists(layout.STREAMS) or directory.exists(layout.IMAGES):
            raise NotARepository(
                f"{where} is gone", hint="put it back, or pull the images again"
            ) from exc
        raise NotARepository(f"{directory.path} is an empty repository: no objects/") from exc


def _headless(path: str) -> NotARepository:
    return NotARepository(
        f"{path} has objects but no meta.json: an older format, or remains of an interrupted run",
        hint="bootc internals cfs init --ensure writes meta.json by what the objects are",
    )


def _said(metadata: Metadata) -> str:
    formats = metadata.effective_erofs_formats()
    return f"{metadata.algorithm.label}, EROFS format {formats.default}"
