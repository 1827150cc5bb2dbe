"""Runs an iterator in a thread of its own, a few items ahead of its reader.

The thread reads, decompresses and hashes, which all release the GIL for large buffers, while the
reader works on what came before.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Self

#: How long the thread waits before it asks whether the reader has gone, in seconds.
_POLL_S = 0.1


class ReadAhead:
    """An iterator of chunks that another thread makes.

    Use it as a context manager. After the block the thread has ended, and nobody reads from
    ``chunks`` any more.

    Args:
        chunks: The iterator. The thread closes it. An exception that it raises is raised for the
            reader, in its place.
        depth: How many chunks may wait for the reader.
    """

    def __init__(self, chunks: Generator[bytes, None, None], *, depth: int = 8) -> None:
        self._chunks = chunks
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bootc-read-ahead", daemon=True)
        self._ended = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        item = None if self._ended else self._queue.get()
        if isinstance(item, bytes):
            return item
        self._ended = True
        if item is None:
            raise StopIteration
        raise item

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            with contextlib.closing(self._chunks):
                for chunk in self._chunks:
                    self._put(chunk)
                    if self._stop.is_set():
                        return
        except BaseException as exc:  # noqa: BLE001  (the reader raises it)
            end = exc
        self._put(end)

    def _put(self, item: bytes | BaseException | None) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._queue.put(item, timeout=_POLL_S)
                return
