"""Lists the files of an initramfs.

An initramfs is one or more cpio archives with zeros between them; the last one is usually
compressed (gzip, bzip2, xz, lzma or zstd). Contents of files are skipped.
Promises: other bytes raise :class:`InitramfsError` with their offset. Memory does not
grow with the decompressed size, and a limit bounds the time.

Format: Linux ``Documentation/driver-api/early-userspace/buffer-format.rst``.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator

import zstandard

from bootc.errors import Error

#: The limit of the decompressed size: twenty times the usual size.
MAX_BYTES = 1 << 31
MAX_NAME_BYTES = 4096

_MAGICS = (b"070701", b"070702")
_HEADER_BYTES = 110
#: Of the thirteen numbers of eight digits: size of the content, length of the name.
_SIZE, _NAME_SIZE = slice(54, 62), slice(94, 102)
_ALIGNMENT = 4
_TRAILER = b"TRAILER!!!"
_CHUNK_BYTES = 1 << 16
#: A zstd decompressor returns all output for its input at once: up to about 32 KiB for a byte.
_ZSTD_FEED_BYTES = 1 << 10

_GZIP, _BZIP2, _XZ, _LZMA = b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x5d\0\0"
_ZSTD = b"\x28\xb5\x2f\xfd"
_LONGEST_MAGIC = 6


class InitramfsError(Error):
    """Bytes are not an initramfs, or it cannot be read."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"bad initramfs: {what} at offset {offset}")


def initramfs_names(read: Callable[[int], bytes], *, max_bytes: int = MAX_BYTES) -> Iterator[bytes]:
    """Yield the paths of an initramfs, relative to its root, in the order it has them.

    Args:
        read: Returns up to as many bytes as asked for, none at the end.
        max_bytes: Read no more than this, as stored and once it is decompressed.

    Raises:
        InitramfsError: at the first byte that is wrong.
    """
    outer = _Stream(read, max_bytes)
    yield from _archives(outer)
    if magic := outer.peek(_LONGEST_MAGIC):
        inner = _Stream(_decompressed(magic, outer), max_bytes)
        yield from _archives(inner)
        if inner.peek(1):
            raise InitramfsError("no cpio archive in the compressed data", inner.offset)


class _Stream:
    """Reads ahead, and counts."""

    def __init__(self, read: Callable[[int], bytes], max_bytes: int) -> None:
        self._read = read
        self._max_bytes = max_bytes
        self._buffer = b""
        self._at = 0
        self.offset = 0

    def peek(self, size: int) -> bytes:
        """Return the next bytes without taking them, fewer only at the end."""
        while len(self._buffer) - self._at < size and (data := self._read(_CHUNK_BYTES)):
            self._buffer = self._buffer[self._at :] + data
            self._at = 0
        return self._buffer[self._at : self._at + size]

    def read(self, size: int, /) -> bytes:
        """Take up to ``size`` bytes, none at the end."""
        if self._at == len(self._buffer):
            self._buffer = self._read(_CHUNK_BYTES)
            self._at = 0
        data = self._buffer[self._at : self._at + size]
        self._at += len(data)
        self.offset += len(data)
        if self.offset > self._max_bytes:
            raise InitramfsError(f"more than {self._max_bytes} bytes", self.offset)
        return data

    def skip_zeros(self) -> None:
        """Pass over zero bytes."""
        while rest := self.peek(1) and self._buffer[self._at :]:
            zeros = len(rest) - len(rest.lstrip(b"\0"))
            self.skip(zeros)
            if zeros < len(rest):
                return

    def exactly(self, size: int) -> bytes:
        """Take ``size`` bytes."""
        parts = []
        while size:
            data = self.read(size)
            if not data:
                raise InitramfsError("truncated", self.offset)
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes."""
        while size:
            data = self.read(min(size, _CHUNK_BYTES))
            if not data:
                raise InitramfsError("truncated", self.offset)
            size -= len(data)


def _archives(stream: _Stream) -> Iterator[bytes]:
    """Yield the names of all archives up to something else, or to the end."""
    while True:
        stream.skip_zeros()
        if stream.peek(len(_MAGICS[0])) not in _MAGICS:
            return
        yield from _members(stream)


def _members(stream: _Stream) -> Iterator[bytes]:
    while True:
        start = stream.offset
        header = stream.exactly(_HEADER_BYTES)
        if header[: len(_MAGICS[0])] not in _MAGICS:
            raise InitramfsError("no header of a file", start)
        try:
            size, name_size = (int(header[field], 16) for field in (_SIZE, _NAME_SIZE))
        except ValueError:
            size = name_size = -1
        if not 0 < name_size <= MAX_NAME_BYTES or size < 0:
            raise InitramfsError("a header with wrong numbers", start)
        name = stream.exactly(name_size).rstrip(b"\0")
        stream.skip(-(_HEADER_BYTES + name_size) % _ALIGNMENT)
        if name == _TRAILER:
            return
        stream.skip(size)
        # The last member may end the file.
        if stream.peek(1):
            stream.skip(min(-size % _ALIGNMENT, len(stream.peek(_ALIGNMENT))))
        yield name.removeprefix(b".").lstrip(b"/") if name.startswith((b"./", b"/")) else name


def _decompressed(magic: bytes, source: _Stream) -> Callable[[int], bytes]:
    start = source.offset
    if magic.startswith(_ZSTD):
        pieces = _unzstd(source)
    elif magic.startswith(_GZIP):
        pieces = _inflate(source)
    elif magic.startswith(_BZIP2):
        pieces = _pump(bz2.BZ2Decompressor(), source)
    elif magic.startswith((_XZ, _LZMA)):
        pieces = _pump(lzma.LZMADecompressor(), source)
    else:
        raise InitramfsError(f"neither cpio nor a known compression ({magic.hex()})", start)
    return lambda size: next(pieces, b"")


def _unzstd(source: _Stream) -> Iterator[bytes]:
    frame = zstandard.ZstdDecompressor().decompressobj()
    while not frame.eof:
        data = source.read(_ZSTD_FEED_BYTES)
        if not data:
            raise InitramfsError("truncated zstd data", source.offset)
        try:
            out = frame.decompress(data)
        except (zstandard.ZstdError, MemoryError) as exc:
            raise InitramfsError(f"corrupt zstd data ({exc})", source.offset) from exc
        if out:
            yield out


def _inflate(source: _Stream) -> Iterator[bytes]:
    member = zlib.decompressobj(16 + zlib.MAX_WBITS)
    while not member.eof:
        data = member.unconsumed_tail or source.read(_CHUNK_BYTES)
        if not data:
            raise InitramfsError("truncated gzip data", source.offset)
        try:
            out = member.decompress(data, _CHUNK_BYTES)
        except zlib.error as exc:
            raise InitramfsError(f"corrupt gzip data ({exc})", source.offset) from exc
        if out:
            yield out


def _pump(
    decompressor: bz2.BZ2Decompressor | lzma.LZMADecompressor, source: _Stream
) -> Iterator[bytes]:
    while not decompressor.eof:
        data = source.read(_CHUNK_BYTES) if decompressor.needs_input else b""
        if decompressor.needs_input and not data:
            raise InitramfsError("truncated compressed data", source.offset)
        try:
            out = decompressor.decompress(data, _CHUNK_BYTES)
        except (OSError, ValueError, lzma.LZMAError, EOFError, MemoryError) as exc:
            raise InitramfsError(f"corrupt compressed data ({exc})", source.offset) from exc
        if out:
            yield out
