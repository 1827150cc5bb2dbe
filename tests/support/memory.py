"""An object store in a dictionary."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.verity import verity_digest

SHA256 = Algorithm.SHA256


class Memory:
    """An ``ObjectSink``."""

    algorithm = SHA256

    def __init__(self) -> None:
        self.objects: dict[Digest, bytes] = {}

    def put(self, data: bytes) -> Digest:
        digest = verity_digest(data, SHA256)
        self.objects[digest] = data
        return digest

    def put_many(self, contents: Sequence[bytes]) -> list[Digest]:
        return [self.put(data) for data in contents]

    @contextlib.contextmanager
    def writer(self) -> Iterator[Memory.Writer]:
        yield Memory.Writer(self)

    class Writer:
        def __init__(self, memory: Memory) -> None:
            self._memory = memory
            self._data = bytearray()

        def write(self, data: bytes | bytearray | memoryview) -> None:
            self._data += data

        def commit(self) -> Digest:
            return self._memory.put(bytes(self._data))
