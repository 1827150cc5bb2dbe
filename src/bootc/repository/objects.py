"""The object store: files named by their own fs-verity digest.

Owns: ``objects/XX/REST`` (composefs, "Writing objects"). Promises:

- An object appears under its name complete or not at all, and only after its content
  is on the disk. A file that an interrupted run leaves behind has no name, or a name that
  starts with ``.tmp-object-``.
- In a secure repository the kernel computes the digest, and an object without
  fs-verity, or with another digest than its name says, is never handed out. In an
  insecure one the kernel does so where it can; elsewhere :meth:`Objects.read`
  computes the digest of what it returns.
- Storing an object again changes nothing, unless the stored object is damaged: it is read
  and compared, and replaced if it differs. Other programs, and older kernels after a power
  cut, leave zeros under the right name.

Why names come late. Enabling fs-verity hashes the page cache, not the disk. ext4 writes
the data out before it sets the flag; btrfs and file systems without fs-verity do not,
and a journal keeps the name of a file whose data a power cut has lost. An ``fsync`` for
each of a hundred thousand files is no answer. So a finished object stays nameless, its
descriptor open, until some hundreds are; then one ``syncfs`` makes content, Merkle trees
and flags durable, and names follow. This handle finds its nameless objects; everybody
else does after :meth:`Objects.flush`. A crash loses the last of them, as if they had not
been stored. (On ext4 their blocks may stay lost until the next full check: enabling
fs-verity takes a nameless inode off the list of those to clean up.)

Several threads may call :meth:`Objects.put_many` at once, and beside them one thread everything
else. A lock guards the list of nameless objects; content is written outside of it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from bootc.errors import Error, doing
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.verity import VerityHasher, verity_digest, verity_digests
from bootc.fs.atomic import Tmpfile
from bootc.fs.dir import Dir, read_all
from bootc.kernel import fsverity
from bootc.repository import sealing as sealing
from bootc.repository.sealing import DAMAGE, Verity, VerityMissing
from bootc.repository.tally import Tally

if TYPE_CHECKING:
    from bootc.fs.content_sink import ContentWriter

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
#: Objects that wait for their names together. More cost descriptors, fewer cost time.
_BATCH = 256
#: A directory is listed when more of its objects are asked for; looking each up is cheaper below.
_LIST_FROM = 32
#: Up to here hashing costs less than the file it saves when the object is there already.
_HASH_FIRST_BYTES = 64 * 1024


class ObjectCorrupt(Error):
    """An object is not what its name says."""


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
        #: Objects stored so far; one in place of a damaged one is new.
        self.tally = Tally()
        self._dir = directory
        self._verity = verity
        # Until the kernel says otherwise. Once it has, writers hash while they write.
        self._kernel_hashes = True
        self._nameless: dict[Digest, Tmpfile] = {}
        self._batch = _batch_size()
        self._failed = False
        self._lock = threading.RLock()

    def require_writable(self) -> None:
        """Raise ``OSError`` unless objects can be stored.

        EROFS if the repository was opened for reading, EIO after a failed :meth:`flush`: objects
        whose names were returned are lost then, and no new stream or image may refer to them.
        """
        if not self.writable:
            raise OSError(errno.EROFS, "the repository is open for reading only", self._dir.path)
        if self._failed:
            raise OSError(errno.EIO, "earlier objects could not be written", self._dir.path)

    def put(self, data: bytes) -> Digest:
        """Store ``data`` and return its name.

        Raises:
            VerityMissing: the repository is secure and the file system cannot do fs-verity.
        """
        self.require_writable()
        with self.storing():
            digest = None
            if len(data) <= _HASH_FIRST_BYTES or not self._kernel_hashes:
                digest = verity_digest(data, self.algorithm)
                if self._has(digest, data):
                    with self._lock:
                        self._count(len(data), new=False)
                    return digest
            with Tmpfile.create(self._dir) as tmpfile:
                tmpfile.write(data)
                return self._add(tmpfile, digest, absent=digest is not None)[0]

    def put_many(self, contents: Sequence[bytes]) -> list[Digest]:
        """Store objects whose contents are in memory, and return their names.

        The system calls of a batch are made together, and other threads run meanwhile.

        Raises:
            VerityMissing: as :meth:`put`.
        """
        self.require_writable()
        digests = verity_digests(contents, self.algorithm)
        with self.storing():
            if self._verity is not fsverity:
                for content in contents:
                    self.put(content)
                return digests
            for at in range(0, len(contents), self._batch):
                self._put_batch(contents[at : at + self._batch], digests[at : at + self._batch])
        return digests

    @contextlib.contextmanager
    def writer(self) -> Iterator[ContentWriter]:
        """Start an object whose content arrives in pieces.

        ``commit`` raises :class:`VerityMissing` like :meth:`put`.
        """
        # Here and below: commands that only read start faster without what stores.
        from bootc.repository.object_writer import StoringWriter

        with self.new_file() as tmpfile:
            hasher = None if self._kernel_hashes else VerityHasher(self.algorithm)
            yield StoringWriter(self, tmpfile, hasher)

    def new_file(self) -> Tmpfile:
        """Return an empty file for :meth:`add_file`; the caller closes it in any case."""
        self.require_writable()
        with self.storing():
            return Tmpfile.create(self._dir)

    def add_file(self, tmpfile: Tmpfile, digest: Digest | None = None) -> tuple[Digest, bool]:
        """Make a file in this file system an object, whatever it holds.

        Args:
            tmpfile: The complete file. This object takes it over; the caller only closes it.
            digest: The name, if the caller has computed it.

        Returns:
            The name, and whether the object is new.

        Raises:
            VerityMissing: the repository is secure and the file system cannot do fs-verity.
            ObjectCorrupt: the kernel read other content than the caller has hashed.
        """
        self.require_writable()
        with self.storing():
            return self._add(tmpfile, digest)

    def link_file(self, fd: int) -> tuple[Digest, bool]:
        """Make a file an object by giving its inode a second name.

        fs-verity is enabled on it, which makes it immutable under its first name as well.

        Returns:
            The name, and whether the object is new.

        Raises:
            OSError: whatever forbids the link (EXDEV, EPERM, …) or fs-verity (ETXTBSY,
                EOPNOTSUPP, …); the file is what it was.
        """
        self.require_writable()
        with self.storing(), Tmpfile.link(self._dir, fd) as tmpfile:
            sealing.enable_in_place(tmpfile.fileno(), self.algorithm, self._verity)
            number, raw = self._verity.measure(tmpfile.fileno())
            if number != self.algorithm.value:
                raise OSError(errno.EOPNOTSUPP, "the file has fs-verity of another algorithm")
            return self._stage_unless_there(tmpfile, Digest(self.algorithm, raw))

    def flush(self) -> None:
        """Make the content of all objects stored so far durable, then give them their names.

        Only a ``sync`` of the repository makes the names themselves durable.

        Raises:
            OSError: the disk is full or fails. Objects without a name are lost, and this handle
                stores nothing more.
        """
        with self._lock, self.storing():
            if self._nameless:
                self._name_all()

    def discard(self) -> None:
        """Drop the objects that have no name yet."""
        while self._nameless:
            self._nameless.popitem()[1].close()

    def exists(self, digest: Digest) -> bool:
        """Tell whether there is an object of this name, without checking its content."""
        return digest in self._nameless or self._dir.exists(digest.object_path)

    def missing(self, digests: Iterable[Digest]) -> list[Digest]:
        """Return the digests without an object, without checking any content."""
        wanted: dict[str, list[Digest]] = {}
        for digest in digests:
            if digest not in self._nameless:
                wanted.setdefault(digest.object_path[:2], []).append(digest)
        return [d for bucket, some in wanted.items() for d in self._missing_in(bucket, some)]

    def _missing_in(self, bucket: str, digests: list[Digest]) -> Iterator[Digest]:
        try:
            with self._dir.open_dir(bucket) as below:
                if len(digests) > _LIST_FROM:
                    with os.scandir(below.fileno()) as entries:
                        there = {e.name for e in entries if e.is_file(follow_symlinks=False)}
                    yield from (d for d in digests if d.object_path[3:] not in there)
                else:
                    yield from (d for d in digests if not below.is_file(d.object_path[3:]))
        except (FileNotFoundError, NotADirectoryError):
            yield from digests

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
            ObjectCorrupt: its content does not match its name.
            OSError: EFBIG if it is larger than ``limit``.
        """
        fd, measured = self._open(digest)
        with open(fd, "rb", buffering=0), doing(f"Reading object {digest}"):
            data = read_all(fd, self.path_of(digest), limit)
        if not measured and verity_digest(data, self.algorithm) != digest:
            raise ObjectCorrupt(f"the content of {self.path_of(digest)} is damaged")
        return data

    def path_of(self, digest: Digest) -> str:
        """Return where an object is, or would be, for messages."""
        return f"{self._dir.path}/{digest.object_path}"

    def _open(self, digest: Digest) -> tuple[int, bool]:
        """Return a descriptor, and whether the kernel vouches for the content."""
        if digest in self._nameless:
            self.flush()
        return self._stored(digest)

    def _stored(self, digest: Digest) -> tuple[int, bool]:
        with doing(f"Opening object {digest}"):
            try:
                # O_NONBLOCK: a FIFO in an object's place must not hang us.
                fd = self._dir.open_file(digest.object_path, os.O_RDONLY | os.O_NONBLOCK)
            except OSError as exc:
                if exc.errno != errno.ELOOP:
                    raise
                raise ObjectCorrupt(f"{self.path_of(digest)} is a symlink") from exc
            try:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    raise ObjectCorrupt(f"{self.path_of(digest)} is not a regular file")
                return fd, self._check(fd, digest)
            except BaseException:
                os.close(fd)
                raise

    def _check(self, fd: int, digest: Digest) -> bool:
        measured = sealing.measure(fd, self._verity)
        if measured is None:
            if self.secure:
                raise VerityMissing(f"{self.path_of(digest)} has no fs-verity")
            return False
        if measured != (digest.algorithm.value, digest.raw):
            raise ObjectCorrupt(f"{self.path_of(digest)} has the digest {measured[1].hex()}")
        return True

    def storing(self) -> doing:
        """Name the store in errors."""
        return doing(f"Storing an object in {self._dir.path}")

    def _add(
        self, tmpfile: Tmpfile, digest: Digest | None, *, absent: bool = False
    ) -> tuple[Digest, bool]:
        return self._stage_unless_there(tmpfile, self._seal(tmpfile, digest), absent=absent)

    def _put_batch(self, contents: Sequence[bytes], digests: Sequence[Digest]) -> None:
        from bootc.repository import store_batch

        wanted: dict[Digest, bytes] = {}
        for digest, content in zip(digests, contents, strict=True):
            if digest in wanted or digest in self._nameless:
                with self._lock:
                    self._count(len(content), new=False)
            else:
                wanted[digest] = content
        states = store_batch.store_batch(
            self._dir.fileno(),
            tuple(wanted.values()),
            tuple(digest.object_path.encode() for digest in wanted),
            tuple(digest.raw for digest in wanted),
            self.algorithm.value,
            self._kernel_hashes,
            self.secure,
        )
        made = {
            digest: Tmpfile(self._dir, fd, None)
            for digest, fd in zip(wanted, states, strict=True)
            if fd not in (store_batch.PRESENT, store_batch.UNDECIDED)
        }
        try:
            for (digest, content), state in zip(wanted.items(), states, strict=True):
                if state == store_batch.UNDECIDED:
                    self.put(content)
                    continue
                with self._lock:
                    self._stage(made.get(digest), digest, len(content))
        finally:
            for tmpfile in made.values():
                tmpfile.close()

    def _stage(self, tmpfile: Tmpfile | None, digest: Digest, size_bytes: int) -> bool:
        """Take over a file that becomes an object; None, and an object it has already, are not."""
        new = tmpfile is not None and digest not in self._nameless
        self._count(size_bytes, new=new)
        if tmpfile is not None and new:
            self._nameless[digest] = tmpfile.detach()
            if len(self._nameless) >= self._batch:
                self._name_all()
        return new

    def _stage_unless_there(
        self, tmpfile: Tmpfile, digest: Digest, *, absent: bool = False
    ) -> tuple[Digest, bool]:
        new = absent or not self._has(digest, tmpfile.fileno())
        size_bytes = os.fstat(tmpfile.fileno()).st_size
        with self._lock:
            new = self._stage(tmpfile if new else None, digest, size_bytes)
        if not new:
            tmpfile.close()
        return digest, new

    def _count(self, size_bytes: int, *, new: bool) -> None:
        one = Tally(1, size_bytes) if new else Tally(present=1, present_bytes=size_bytes)
        self.tally += one

    def _name_all(self) -> None:
        from bootc.repository import store_batch

        try:
            self._dir.sync()
            unnamed = [
                (d, tmpfile) for d, tmpfile in self._nameless.items() if not tmpfile.is_named
            ]
            errors = store_batch.name_batch(
                self._dir.fileno(),
                tuple(tmpfile.fileno() for _, tmpfile in unnamed),
                tuple(digest.object_path.encode() for digest, _ in unnamed),
            )
            named = {
                digest for (digest, _), error in zip(unnamed, errors, strict=True) if not error
            }
            while self._nameless:
                digest, tmpfile = next(iter(self._nameless.items()))
                if digest not in named:
                    self._publish(tmpfile, digest)
                del self._nameless[digest]
                tmpfile.close()
        except BaseException:
            self._failed = True
            self.discard()
            raise

    def _seal(self, tmpfile: Tmpfile, digest: Digest | None) -> Digest:
        """Enable fs-verity where there is any, and return the file's digest."""
        if self._kernel_hashes:
            try:
                return self._measured(tmpfile, digest)
            except OSError as exc:
                if exc.errno not in sealing.UNSUPPORTED:
                    raise
                if self.secure:
                    raise VerityMissing(
                        f"the file system of {self._dir.path} does not support fs-verity"
                    ) from exc
                self._kernel_hashes = False
        return self._hash(tmpfile.fileno()) if digest is None else digest

    def _measured(self, tmpfile: Tmpfile, expected: Digest | None) -> Digest:
        sealing.enable(tmpfile, self.algorithm, self._verity)
        number, raw = self._verity.measure(tmpfile.fileno())
        digest = Digest(Algorithm(number), raw)
        if expected not in (None, digest):
            raise ObjectCorrupt(f"content changed while it was stored: {digest}, not {expected}")
        return digest

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
        if not fresh and not self._matches(digest, tmpfile.fileno()):
            _log.warning("replacing damaged object %s", self.path_of(digest))
            with doing(f"Replacing {self.path_of(digest)}"):
                tmpfile.replace(self._dir, digest.object_path)

    def _has(self, digest: Digest, content: bytes | int) -> bool:
        """Tell whether the object is there, named or not, and has this content."""
        try:
            return digest in self._nameless or self._matches(digest, content)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _matches(self, digest: Digest, content: bytes | int) -> bool:
        """Compare an object that exists; a name and a size survive what the content does not."""
        try:
            fd, _ = self._stored(digest)
        except (ObjectCorrupt, VerityMissing):
            return False
        except OSError as exc:
            if exc.errno in DAMAGE:
                return False
            raise
        from bootc.repository.content_compare import has_content

        with open(fd, "rb", buffering=0):
            return has_content(fd, content)


def _batch_size() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _BATCH if limit == resource.RLIM_INFINITY else min(_BATCH, limit // 4)
