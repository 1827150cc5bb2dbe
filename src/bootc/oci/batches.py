"""A splitstream whose small objects are stored in batches, by other threads.

The parts of a stream have an order, and the number of an object in it is known only when its
digest is. So the parts of a batch wait until its objects are stored. What waits is bounded.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import NamedTuple, Self

from bootc.formats.digest import Digest
from bootc.formats.splitstream import StreamWriter
from bootc.repository.sink import ObjectSink

#: Larger objects pass in pieces and are not kept in memory.
LARGEST_BYTES = 1 << 20
#: A batch ends when it has so many bytes, or so many objects: each costs a descriptor.
_BATCH_BYTES = 1 << 20
_BATCH_OBJECTS = 128
#: Threads that store. Splitting a layer keeps no more of them busy.
_WORKERS = min(2, os.cpu_count() or 1)
_WAITING_BATCHES = _WORKERS + 1


class _Known(NamedTuple):
    """An object that is stored already."""

    digest: Digest
    size_bytes: int


class _Kept(NamedTuple):
    """An object that the stream only refers to."""

    digest: Digest


#: What a stream consists of, in its order. A number is the size of a content of the batch.
_Part = bytes | _Known | _Kept | int


class _Batch(NamedTuple):
    """Parts of a stream, and the digests of the contents among them."""

    parts: list[_Part]
    digests: Future[list[Digest]] | Sequence[Digest]


class BatchedStream:
    """Writes a splitstream. Use it as a context manager: at the end its threads have ended.

    Args:
        stream: The stream.
        sink: Receives the objects.
    """

    def __init__(self, stream: StreamWriter, sink: ObjectSink) -> None:
        self._stream = stream
        self._sink = sink
        self._parts: list[_Part] = []
        self._contents: list[bytes] = []
        self._waiting_bytes = 0
        self._batches: deque[_Batch] = deque()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def inline(self, data: bytes) -> None:
        """Append bytes of the stream itself."""
        self._add(data, len(data))

    def content(self, data: bytes) -> None:
        """Append an object by its content, of at most :data:`LARGEST_BYTES`."""
        self._contents.append(data)
        self._add(len(data), len(data))

    def external(self, digest: Digest, size_bytes: int) -> None:
        """Append an object that is stored."""
        self._add(_Known(digest, size_bytes), 0)

    def keep(self, digest: Digest) -> None:
        """Refer to an object that is no part of the content, as :meth:`StreamWriter.keep`."""
        self._add(_Kept(digest), 0)

    def finish(self) -> bytes:
        """Wait for all objects and return the stream.

        Raises:
            Error, OSError: an object could not be stored.
            StreamTooLarge: as :class:`StreamWriter`.
        """
        if self._batches:
            self._submit()
        else:  # a small layer needs no thread
            self._batches.append(_Batch(self._parts, self._store()))
        while self._batches:
            self._write_first()
        return self._stream.finish()

    def _add(self, part: _Part, size_bytes: int) -> None:
        self._parts.append(part)
        self._waiting_bytes += size_bytes
        if self._waiting_bytes >= _BATCH_BYTES or len(self._contents) >= _BATCH_OBJECTS:
            self._submit()

    def _store(self) -> list[Digest]:
        return self._sink.put_many(self._contents) if self._contents else []

    def _submit(self) -> None:
        """Have the objects of the batch stored, and write the batches that wait for too long."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_WORKERS, "bootc-store")
        stored: Future[list[Digest]] | list[Digest] = []
        if self._contents:
            stored = self._pool.submit(self._sink.put_many, self._contents)
        self._batches.append(_Batch(self._parts, stored))
        self._parts, self._contents, self._waiting_bytes = [], [], 0
        while len(self._batches) > _WAITING_BATCHES:
            self._write_first()

    def _write_first(self) -> None:
        parts, stored = self._batches.popleft()
        digests = iter(stored.result() if isinstance(stored, Future) else stored)
        for part in parts:
            if isinstance(part, bytes):
                self._stream.inline(part)
            elif isinstance(part, int):
                self._stream.external(next(digests), part)
            elif isinstance(part, _Kept):
                self._stream.keep(part.digest)
            else:
                self._stream.external(*part)
