"""The object store: files named by their own fs-verity digest.

Owns: ``objects/XX/REST`` (composefs, "Writing objects"). Promises:

- An object appears under its name complete or not at all; what an interrupted
  run leaves behind has no name, or one that starts with ``.tmp-object-``.
- In a secure repository the kernel computes the digest, and an object without
  fs-verity, or with another digest than its name says, is never handed out. In an
  insecure one the kernel does so where it can; elsewhere :meth:`Objects.read`
  computes the digest of what it returns.
- Storing what is already there changes nothing, unless what is there is damaged
  (after a power cut, say, an empty file under the right name): then it is replaced.

Not promised: durability. The repository syncs once, before it makes a link that
makes objects reachable, and not for each of a hundred thousand files.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from bootc.errors import Error, doing
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.tree import External, Inline
from bootc.formats.verity import VerityHasher, verity_digest
from bootc.fs.atomic import Tmpfile
from bootc.fs.dir import Dir, read_all
from bootc.kernel import files, fsverity
from bootc.repository import verity as sealing
from bootc.repository.verity import Verity, VerityMissing

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20


class ObjectCorrupt(Error):
    """An object is not what its name says."""


class ObjectWriter(Protocol):
    """Where the content of one object is written to."""

    def clone(self, fd: int) -> bool:
        """Share the blocks of a file as the whole content, before any :meth:`write`.

        Returns:
            False where that cannot be; nothing has changed then.
        """

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append to the object."""

    def commit(self) -> Digest:
        """Finish the object and return its name; nothing may be written after."""


class ObjectSink(Protocol):
    """Where objects go to: a repository, or nowhere but through the hash."""

    @property
    def algorithm(self) -> Algorithm:
        """What objects are named by."""

    def put(self, data: bytes) -> Digest:
        """Store an object that is at hand as a whole."""

    def writer(self) -> AbstractContextManager[ObjectWriter]:
        """Start an object whose content arrives in pieces; without a commit it never existed."""


class DigestOnly:
    """An :class:`ObjectSink` that stores nothing."""

    __slots__ = ("algorithm",)

    def __init__(self, algorithm: Algorithm) -> None:
        self.algorithm = algorithm

    def put(self, data: bytes) -> Digest:
        """Return the name ``data`` would have."""
        return verity_digest(data, self.algorithm)

    def writer(self) -> AbstractContextManager[ObjectWriter]:
        """Return a writer that only hashes."""
        return contextlib.nullcontext(_HashingWriter(self.algorithm))


class _HashingWriter:
    __slots__ = ("_hasher",)

    def __init__(self, algorithm: Algorithm) -> None:
        self._hasher = VerityHasher(algorithm)

    def clone(self, fd: int) -> bool:
        return False  # there is nothing to share them with

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._hasher.update(data)

    def commit(self) -> Digest:
        return self._hasher.digest()


class Objects:
    """The objects of a repository; an :class:`ObjectSink`.

    Args:
        directory: The repository's ``objects/``; belongs to the caller.
        algorithm: What objects are named by.
        secure: Demand fs-verity of every object.
        writable: Whether storing is allowed.
        verity: The kernel's ioctls.
    """

    def __init__(
        self,
        directory: Dir,
        algorithm: Algorithm,
        *,
        secure: bool,
        writable: bool,
        verity: Verity = fsverity,
    ) -> None:
        self.algorithm = algorithm
        self.secure = secure
        self.writable = writable
        self._dir = directory
        self._verity = verity
        # Until the kernel says otherwise. Once it has, writers hash while they write.
        self._kernel_hashes = True

    def require_writable(self) -> None:
        """Raise ``OSError`` (EROFS) unless the repository was opened for writing."""
        if not self.writable:
            raise OSError(errno.EROFS, "the repository is open for reading only", self._dir.path)

    def put(self, data: bytes) -> Digest:
        """Store ``data`` and return its name.

        Raises:
            VerityMissing: the repository is secure and the file system cannot do fs-verity.
        """
        with self.writer() as writer:
            writer.write(data)
            return writer.commit()

    @contextlib.contextmanager
    def writer(self) -> Iterator[ObjectWriter]:
        """Start an object whose content arrives in pieces.

        ``commit`` raises :class:`VerityMissing` like :meth:`put`.
        """
        self.require_writable()
        with self._storing():
            tmpfile = Tmpfile.create(self._dir)
        with tmpfile:
            hasher = None if self._kernel_hashes else VerityHasher(self.algorithm)
            yield _StoringWriter(self, tmpfile, hasher)

    def exists(self, digest: Digest) -> bool:
        """Tell whether there is an object of this name; its content is not looked at."""
        return self._dir.exists(digest.object_path)

    def open(self, digest: Digest) -> int:
        """Open an object for reading; the descriptor belongs to the caller.

        Where there is no fs-verity and the repository does not demand it, the content is not
        checked.

        Raises:
            FileNotFoundError: there is no such object.
            VerityMissing: the repository is secure and the object has no fs-verity.
            ObjectCorrupt: it is not the object its name says.
        """
        fd, _ = self._open(digest)
        return fd

    def read(self, digest: Digest, *, limit: int | None = None) -> bytes:
        """Return the whole content of an object, checked by the kernel or here.

        Raises:
            FileNotFoundError: there is no such object.
            VerityMissing: the repository is secure and the object has no fs-verity.
            ObjectCorrupt: it is not the object its name says.
            OSError: EFBIG when it is larger than ``limit``.
        """
        fd, measured = self._open(digest)
        with open(fd, "rb", buffering=0), doing(f"Reading object {digest}"):
            data = read_all(fd, self._path(digest), limit)
        if not measured and verity_digest(data, self.algorithm) != digest:
            raise ObjectCorrupt(f"the content of {self._path(digest)} is damaged")
        return data

    def read_content(self, content: Inline | External, *, limit: int | None = None) -> bytes:
        """Return the content of a regular file of a tree.

        Raises:
            FileNotFoundError, VerityMissing, ObjectCorrupt: as :meth:`read`.
            OSError: EFBIG when it is larger than ``limit``.
        """
        if limit is not None and content.size_bytes > limit:
            raise OSError(errno.EFBIG, f"file is larger than {limit} bytes")
        if isinstance(content, Inline):
            return content.data
        data = self.read(content.digest, limit=limit)
        if len(data) != content.size_bytes:
            raise ObjectCorrupt(
                f"{self._path(content.digest)} has {len(data)} bytes, "
                f"its image says {content.size_bytes}"
            )
        return data

    def _path(self, digest: Digest) -> str:
        return f"{self._dir.path}/{digest.object_path}"

    def _open(self, digest: Digest) -> tuple[int, bool]:
        """Return a descriptor, and whether the kernel vouches for the content."""
        with doing(f"Opening object {digest}"):
            try:
                # O_NONBLOCK: a FIFO in an object's place must not hang us.
                fd = self._dir.open_file(digest.object_path, os.O_RDONLY | os.O_NONBLOCK)
            except OSError as exc:
                if exc.errno != errno.ELOOP:
                    raise
                raise ObjectCorrupt(f"{self._path(digest)} is a symlink") from exc
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise ObjectCorrupt(f"{self._path(digest)} is not a regular file")
                return fd, self._check(fd, digest)
            except BaseException:
                os.close(fd)
                raise

    def _check(self, fd: int, digest: Digest) -> bool:
        measured = sealing.measure(fd, self._verity)
        if measured is None:
            if self.secure:
                raise VerityMissing(f"{self._path(digest)} has no fs-verity")
            return False
        if measured != (digest.algorithm.value, digest.raw):
            raise ObjectCorrupt(f"{self._path(digest)} has the digest {measured[1].hex()}")
        return True

    def _storing(self) -> doing:
        return doing(f"Storing an object in {self._dir.path}")

    def _seal(self, tmpfile: Tmpfile, hasher: VerityHasher | None) -> Digest:
        """Finish a file's content and return its digest."""
        if hasher is not None:
            tmpfile.reopen()
            return hasher.digest()
        try:
            sealing.enable(tmpfile, self.algorithm, self._verity)
        except OSError as exc:
            if exc.errno not in sealing.UNSUPPORTED:
                raise
            if self.secure:
                raise VerityMissing(
                    f"the file system of {self._dir.path} does not support fs-verity"
                ) from exc
            self._kernel_hashes = False
            return self._hash(tmpfile.fileno())
        number, raw = self._verity.measure(tmpfile.fileno())
        return Digest(Algorithm(number), raw)

    def _hash(self, fd: int) -> Digest:
        hasher = VerityHasher(self.algorithm)
        offset = 0
        while chunk := os.pread(fd, _CHUNK_BYTES, offset):
            hasher.update(chunk)
            offset += len(chunk)
        return hasher.digest()

    def _publish(self, tmpfile: Tmpfile, digest: Digest) -> None:
        try:
            fresh = tmpfile.publish(self._dir, digest.object_path)
        except FileNotFoundError:
            # Another writer may make the directory at the same time.
            with contextlib.suppress(FileExistsError):
                self._dir.mkdir(os.path.dirname(digest.object_path))
            fresh = tmpfile.publish(self._dir, digest.object_path)
        if not fresh and not self._is_intact(digest, os.fstat(tmpfile.fileno()).st_size):
            _log.warning("replacing damaged object %s", self._path(digest))
            tmpfile.replace(self._dir, digest.object_path)

    def _is_intact(self, digest: Digest, size_bytes: int) -> bool:
        try:
            fd, _ = self._open(digest)
        except (ObjectCorrupt, VerityMissing):
            return False
        try:
            return os.fstat(fd).st_size == size_bytes
        finally:
            os.close(fd)


class _StoringWriter:
    __slots__ = ("_hasher", "_objects", "_tmpfile")

    def __init__(self, objects: Objects, tmpfile: Tmpfile, hasher: VerityHasher | None) -> None:
        self._objects = objects
        self._tmpfile = tmpfile
        self._hasher = hasher

    def clone(self, fd: int) -> bool:
        try:
            files.ficlone(self._tmpfile.fileno(), fd)
        except OSError:
            # Copying does the same, and meets what is really wrong by itself.
            return False
        # Nothing passes by here; what is hashed is the clone, which nobody else can change.
        self._hasher = None
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        with self._objects._storing():
            self._tmpfile.write(data)
        if self._hasher is not None:
            self._hasher.update(data)

    def commit(self) -> Digest:
        with self._objects._storing():
            digest = self._objects._seal(self._tmpfile, self._hasher)
            self._objects._publish(self._tmpfile, digest)
        return digest
