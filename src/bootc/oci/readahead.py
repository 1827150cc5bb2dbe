"""Runs an iterator in a thread of its own, a little ahead of its reader.

The thread reads, decompresses and hashes, which all release the GIL for large buffers, while the
reader works on what came before.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Self


class ReadAhead:
    """An iterator of chunks that another thread makes.

    Use it as a context manager. After a block that ends well the thread has ended, and nobody reads
    from ``chunks`` any more. After an exception the thread ends when the source does: a command
    that is interrupted must not wait for a registry that has stopped sending.

    Args:
        chunks: The iterator. The thread closes it. An exception that it raises is raised for the
            reader, in its place.
        limit_bytes: The thread asks for another chunk only while less than this waits.
    """

    def __init__(self, chunks: Generator[bytes, None, None], *, limit_bytes: int = 2 << 20) -> None:
        self._chunks = chunks
        self._limit_bytes = limit_bytes
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._stopped = self._ended = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="bootc-read-ahead", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()
        if kind is None:
            self._thread.join()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._changed:
            while not (self._waiting or self._ended):
                self._changed.wait()
            if self._waiting:
                chunk = self._waiting.popleft()
                self._waiting_bytes -= len(chunk)
                self._changed.notify()
                return chunk
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration

    def _run(self) -> None:
        try:
            with contextlib.closing(self._chunks):
                while self._may_go_on() and (chunk := next(self._chunks, None)) is not None:
                    with self._changed:
                        self._waiting.append(chunk)
                        self._waiting_bytes += len(chunk)
                        self._changed.notify()
        except BaseException as exc:  # noqa: BLE001  (the reader raises it)
            self._error = exc
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify()

    def _may_go_on(self) -> bool:
        """Wait until little is waiting; tell whether the reader is still there."""
        with self._changed:
            while self._waiting_bytes >= self._limit_bytes and not self._stopped:
                self._changed.wait()
            return not self._stopped
