"""The check of objects: each is measured again and compared with its name.

Owns: the check of one object, and of all objects on several threads. Promises:

- The kernel measures an object with fs-verity, and the check reads it to its end, so every
  byte passes the kernel's check. An object without fs-verity is hashed here. The page cache
  is dropped first where possible, so that the disk is what gets checked.
- Memory does not depend on sizes, and holes cost no time: an object of many terabytes that
  is one hole is checked like any other.
- An object that cannot be checked becomes a finding, and the check continues.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue

from bootc.events import Done, Progress, Sink, Start
from bootc.formats.digest import Algorithm, Digest, DigestError
from bootc.formats.verity import VerityHasher, verity_digests
from bootc.fs.dir import Dir
from bootc.repository import layout
from bootc.repository import sealing as sealing
from bootc.repository.fsck_report import Count, FsckFinding, FsckKind, why
from bootc.repository.sealing import DAMAGE, Verity

_CHUNK_BYTES = 1 << 20
#: Objects up to this size are hashed together, so many at a time.
_SMALL_BYTES = 1 << 16
_GATHER = 256
#: How often progress is reported.
_TICK_S = 0.1
_BUCKETS = tuple(f"{number:02x}" for number in range(256))
#: A symlink, a socket, a device without driver.
_WRONG_TYPE = frozenset({errno.ELOOP, errno.ENXIO, errno.ENODEV})

_TASK = "objects"


class ObjectChecker:
    """Checks single objects; one for each thread.

    Args:
        store: The repository's ``objects/``; belongs to the caller.
        algorithm: What objects are named by.
        secure: Demand fs-verity of every object.
        verity: The kernel's ioctls.
        advance: Told how many bytes were read; may raise to end the check.
    """

    def __init__(
        self,
        store: Dir,
        algorithm: Algorithm,
        *,
        secure: bool,
        verity: Verity,
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._store = store
        self._algorithm = algorithm
        self._secure = secure
        self._verity = verity
        self._advance = advance
        self._buffer = memoryview(bytearray(_CHUNK_BYTES))

    def check(self, digest: Digest) -> FsckFinding | None:
        """Return what is wrong with an object, or None."""
        return next(self.check_all(self._store, [(digest.object_path, digest)]), None)

    def check_all(
        self, directory: Dir, objects: Iterable[tuple[str, Digest]]
    ) -> Iterator[FsckFinding]:
        """Yield what is wrong with objects.

        Args:
            directory: Where they are.
            objects: Their paths below it, and their names.
        """
        small: list[tuple[Digest, bytes]] = []
        gathered = 0
        for path, digest in objects:
            outcome = self._examine(directory, path, digest)
            if isinstance(outcome, FsckFinding):
                yield outcome
            elif outcome is not None:
                small.append((digest, outcome))
                gathered += len(outcome)
                if len(small) == _GATHER or gathered >= _CHUNK_BYTES:
                    yield from self._judge_small(small)
                    small.clear()
                    gathered = 0
        yield from self._judge_small(small)

    def _examine(self, directory: Dir, path: str, digest: Digest) -> FsckFinding | bytes | None:
        """Return what is wrong with an object, or its content if it still has to be hashed."""
        try:
            # O_NONBLOCK: a FIFO in an object's place must not hang us.
            fd = directory.open_file(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as exc:
            if exc.errno in _WRONG_TYPE:
                return _finding(FsckKind.UNEXPECTED_FILE_TYPE, digest, "not a regular file")
            kind = (
                FsckKind.OBJECT_OPEN_FAILED if exc.errno in DAMAGE else FsckKind.OBJECT_CHECK_FAILED
            )
            return _failed(kind, digest, exc)
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                return _finding(FsckKind.UNEXPECTED_FILE_TYPE, digest, "not a regular file")
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            measured = sealing.measure(fd, self._verity)
            if measured is None:
                if info.st_size <= _SMALL_BYTES:
                    content = os.pread(fd, info.st_size, 0)
                    self._advance(len(content))
                    return content
                return self._judge(digest, self._hash(fd, info))
            if measured != (digest.algorithm.value, digest.raw):
                return _mismatch(digest, measured[1])
            self._read(fd, 0, info.st_size, None)
        except OSError as exc:
            kind = (
                FsckKind.OBJECT_VERITY_FAILED
                if exc.errno in DAMAGE
                else FsckKind.OBJECT_CHECK_FAILED
            )
            return _failed(kind, digest, exc)
        finally:
            os.close(fd)
        return None

    def _judge_small(self, small: list[tuple[Digest, bytes]]) -> Iterator[FsckFinding]:
        """Hash many at once: that is several times as fast, and lets other threads run."""
        found = verity_digests([content for _, content in small], self._algorithm) if small else []
        for (digest, _), measured in zip(small, found, strict=True):
            if finding := self._judge(digest, measured):
                yield finding

    def _judge(self, digest: Digest, found: Digest) -> FsckFinding | None:
        """Return what is wrong with an object that has no fs-verity and this content."""
        if found != digest:
            return _mismatch(digest, found.raw)
        return _finding(FsckKind.OBJECT_VERITY_MISSING, digest) if self._secure else None

    def _hash(self, fd: int, info: os.stat_result) -> Digest:
        hasher = VerityHasher(self._algorithm)
        end = at = 0
        # The size at the beginning: a file that grows meanwhile is wrong, and the loop ends.
        while end < info.st_size:
            if info.st_blocks * 512 < info.st_size:
                at, end = _next_data(fd, end, info.st_size)
                hasher.update_zeros(at - hasher.size_bytes)
            else:
                end = info.st_size
            if not self._read(fd, at, end, hasher):
                break
        return hasher.digest()

    def _read(self, fd: int, at: int, end: int, hasher: VerityHasher | None) -> bool:
        """Read a part of a file; False if the file ends in it."""
        while at < end:
            count = os.preadv(fd, [self._buffer[: end - at]], at)
            if not count:
                return False
            if hasher is not None:
                hasher.update(self._buffer[:count])
            at += count
            self._advance(count)
        return True


class _Stopped(Exception):
    """The check was stopped."""


def check_objects(
    store: Dir,
    algorithm: Algorithm,
    sink: Sink,
    *,
    secure: bool,
    verity: Verity,
    workers: int,
) -> tuple[Count, list[FsckFinding]]:
    """Check all objects.

    Args:
        store: The repository's ``objects/``.
        algorithm: What objects are named by.
        sink: Told of progress, from this thread only.
        secure: Demand fs-verity of every object.
        verity: The kernel's ioctls.
        workers: How many threads hash.
    """
    lock = threading.Lock()
    stopped = threading.Event()
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        if stopped.is_set():
            raise _Stopped
        with lock:
            done += count

    buckets: SimpleQueue[str] = SimpleQueue()
    for bucket in _BUCKETS:
        buckets.put(bucket)

    def work() -> list[tuple[Count, list[FsckFinding]]]:
        checker = ObjectChecker(store, algorithm, secure=secure, verity=verity, advance=advance)
        found = []
        with contextlib.suppress(Empty):
            while True:
                found.append(_check_bucket(store, buckets.get_nowait(), algorithm, checker))
        return found

    total = sum(_weight(store, bucket) for bucket in _BUCKETS)
    sink(Start(_TASK, "Checking objects", total))
    with ThreadPoolExecutor(workers, thread_name_prefix="fsck") as pool:
        try:
            futures = [pool.submit(work) for _ in range(workers)]
            while wait(futures, _TICK_S).not_done:
                sink(Progress(_TASK, min(done, total)))
        except BaseException:
            stopped.set()
            raise
    sink(Done(_TASK))
    found = [result for future in futures for result in future.result()]
    return (
        Count(sum(count.checked for count, _ in found), sum(count.corrupted for count, _ in found)),
        sorted((finding for _, part in found for finding in part), key=lambda f: f.path),
    )


def _check_bucket(
    store: Dir,
    bucket: str,
    algorithm: Algorithm,
    checker: ObjectChecker,
) -> tuple[Count, list[FsckFinding]]:
    path = f"{layout.OBJECTS}/{bucket}"
    findings = []
    try:
        with store.open_dir(bucket) as below:
            names = below.names()
            objects = []
            for name in names:
                if digest := _parse_name(bucket, name, algorithm):
                    objects.append((name, digest))
                else:
                    where = f"{path}/{name}"
                    findings.append(
                        FsckFinding(FsckKind.OBJECT_INVALID_NAME, where, "not a digest")
                    )
            findings += checker.check_all(below, objects)
    except FileNotFoundError:
        return Count(), []
    except OSError as exc:
        wrong = exc.errno in (errno.ENOTDIR, errno.ELOOP)
        kind = FsckKind.UNEXPECTED_FILE_TYPE if wrong else FsckKind.OBJECT_OPEN_FAILED
        return Count(), [FsckFinding(kind, path, "not a directory" if wrong else why(exc, path))]
    return Count(len(names), len(findings)), findings


def _finding(kind: FsckKind, digest: Digest, detail: str = "") -> FsckFinding:
    return FsckFinding(kind, f"{layout.OBJECTS}/{digest.object_path}", detail, digest)


def _failed(kind: FsckKind, digest: Digest, exc: OSError) -> FsckFinding:
    return _finding(kind, digest, why(exc, f"{layout.OBJECTS}/{digest.object_path}"))


def _mismatch(digest: Digest, measured: bytes) -> FsckFinding:
    return _finding(FsckKind.OBJECT_DIGEST_MISMATCH, digest, f"measured {measured.hex()}")


def _parse_name(bucket: str, name: str, algorithm: Algorithm) -> Digest | None:
    try:
        digest = Digest.from_hex(bucket + name)
    except DigestError:
        return None
    return digest if digest.algorithm is algorithm else None


def _weight(store: Dir, bucket: str) -> int:
    """Return how many bytes there are to read in a bucket, as far as it can be told."""
    try:
        with store.open_dir(bucket) as below, os.scandir(below.fileno()) as entries:
            return sum(_stored_bytes(entry) for entry in entries)
    except OSError:
        return 0


def _stored_bytes(entry: os.DirEntry[str]) -> int:
    info = entry.stat(follow_symlinks=False)
    return min(info.st_size, info.st_blocks * 512) if stat.S_ISREG(info.st_mode) else 0


def _next_data(fd: int, at: int, size: int) -> tuple[int, int]:
    """Return where the next data begins and ends; both are ``size`` if only a hole is left."""
    try:
        start = os.lseek(fd, at, os.SEEK_DATA)
    except OSError as exc:
        if exc.errno != errno.ENXIO:
            raise
        return size, size
    return min(start, size), min(os.lseek(fd, start, os.SEEK_HOLE), size)
