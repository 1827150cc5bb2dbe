"""Gzip data, decompressed by the fastest library that is installed.

``isal`` and ``zlib-ng`` are optional (the extra ``speed``). They have the interface
of the standard library's ``zlib``. Only the deflated data is theirs. Headers and checksums are
read here, because isal 1.9 takes headers that are wrong, and stumbles over right ones that come
in pieces. So the result is the same for every input.

Format: RFC 1952.
"""

from __future__ import annotations

import contextlib
import functools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from bootc.oci.blob import CHUNK_BYTES, Blob, LayerError

GZIP_MAGIC = b"\x1f\x8b"
#: Deflated data without a header.
_RAW_WBITS = -15
_DEFLATE = 8
_HAS_CHECKSUM, _HAS_EXTRA, _HAS_NAME, _HAS_COMMENT = 2, 4, 8, 16
_RESERVED_FLAGS = 0xE0
#: The name and the comment in a header are for people.
_MAX_TEXT_BYTES = 1 << 16
_FIRST_STEP_BYTES = 1 << 10


class Deflated(Protocol):
    """The data of one gzip member, like ``zlib.decompressobj``."""

    @property
    def eof(self) -> bool:
        """Whether the data is complete."""

    @property
    def unconsumed_tail(self) -> bytes:
        """What has to be given again, because the output was full."""

    @property
    def unused_data(self) -> bytes:
        """What follows the data."""

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return at most ``max_length`` decompressed bytes."""


@dataclass(frozen=True, slots=True)
class Inflater:
    """A library."""

    name: str
    #: Begins the data of a member.
    begin: Callable[[], Deflated]
    crc32: Callable[[bytes, int], int]
    #: What the library raises for corrupt data.
    error: type[Exception]


def installed() -> Iterator[Inflater]:
    """Yield the libraries that are installed, fast ones first."""
    with contextlib.suppress(ImportError):
        from isal import isal_zlib

        yield _inflater("isal", isal_zlib)
    with contextlib.suppress(ImportError):
        from zlib_ng import zlib_ng

        yield _inflater("zlib_ng", zlib_ng)
    yield _inflater("zlib", zlib)


def _inflater(name: str, module: Any) -> Inflater:
    """Return the library of a module with the interface of ``zlib``."""
    begin = functools.partial(module.decompressobj, _RAW_WBITS)
    return Inflater(name, begin, module.crc32, module.error)


@functools.cache
def fastest() -> Inflater:
    """Return the fastest library that is installed."""
    return next(installed())


def gunzip(first: bytes, blob: Blob, inflater: Inflater) -> Iterator[bytes]:
    """Decompress gzip members until a blob ends, in bounded pieces however large they become.

    Args:
        first: The first bytes, which the caller has read.
        blob: The rest.
        inflater: The library.

    Raises:
        LayerError: the data is corrupt or truncated.
    """
    source = _Source(first, blob)
    while source.more():
        source.skip_header()
        checksum = size = 0
        for chunk in _inflate(source, inflater):
            checksum = inflater.crc32(chunk, checksum)
            size += len(chunk)
            yield chunk
        trailer = checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")
        if source.exactly(len(trailer)) != trailer:
            raise _corrupt()


def _inflate(source: _Source, inflater: Inflater) -> Iterator[bytes]:
    """Yield the data of a member in pieces, and give back what follows it."""
    deflated = inflater.begin()
    # What follows a member is copied: a blob of nothing but small members must not be slow.
    step = _FIRST_STEP_BYTES
    while not deflated.eof:
        data = deflated.unconsumed_tail
        if not data:
            data = source.take(step)
            step = min(4 * step, CHUNK_BYTES)
        try:
            out = deflated.decompress(data, CHUNK_BYTES)
        except inflater.error as exc:
            # Each library says in another way what is wrong.
            raise _corrupt() from exc
        if out:
            yield out
    source.give_back(len(deflated.unused_data))


class _Source:
    """The bytes of a blob, of which the last ones taken can be given back."""

    def __init__(self, first: bytes, blob: Blob) -> None:
        self._held = first
        self._at = 0
        self._blob = blob

    def more(self) -> bool:
        """Tell whether there are more bytes."""
        if self._at == len(self._held):
            self._held, self._at = self._blob.read(CHUNK_BYTES), 0
        return bool(self._held)

    def take(self, limit: int) -> bytes:
        """Return some bytes, ``limit`` at most."""
        if not self.more():
            raise LayerError("truncated gzip data")
        data = self._held[self._at : self._at + limit]
        self._at += len(data)
        return data

    def give_back(self, size: int) -> None:
        """Take back so many of the bytes that were taken last."""
        self._at -= size

    def exactly(self, size: int) -> bytes:
        """Return so many bytes."""
        data = b""
        while len(data) < size:
            data += self.take(size - len(data))
        return data

    def skip_header(self) -> None:
        """Skip the header of a member.

        Raises:
            LayerError: it is no header.
        """
        for byte in GZIP_MAGIC:
            # Garbage may be shorter than a header.
            if self.exactly(1)[0] != byte:
                raise _corrupt()
        header = GZIP_MAGIC + self.exactly(8)
        flags = header[3]
        if header[2] != _DEFLATE or flags & _RESERVED_FLAGS:
            raise _corrupt()
        if flags & _HAS_EXTRA:
            size = self.exactly(2)
            header += size + self.exactly(int.from_bytes(size, "little"))
        for text in (_HAS_NAME, _HAS_COMMENT):
            if flags & text:
                header += self._text()
        if flags & _HAS_CHECKSUM:
            checksum = zlib.crc32(header) & 0xFFFF
            if self.exactly(2) != checksum.to_bytes(2, "little"):
                raise _corrupt()

    def _text(self) -> bytes:
        """Return what ends with a zero byte."""
        data = b""
        while not data.endswith(b"\0"):
            text, zero, rest = self.take(_FIRST_STEP_BYTES).partition(b"\0")
            self.give_back(len(rest))
            data += text + zero
            if len(data) > _MAX_TEXT_BYTES:
                raise _corrupt()
        return data


def _corrupt() -> LayerError:
    return LayerError("corrupt gzip data")
