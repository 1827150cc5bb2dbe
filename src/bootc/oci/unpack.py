"""A blob of a layer, split into a splitstream and objects, and a splitstream read as entries.

- Memory stays constant whatever the layer holds, except for the compressed inline bytes.
- The archive can be put together again bit by bit.
- :func:`split_layer` returns a stream only after it has compared the digest of the blob and the
  ``diff_id`` of the layer.

The first bytes of a blob tell its compression, not the media type: archives of ``docker save``
give uncompressed layers the type of compressed layers, and the ``diff_id`` protects the result in
both cases. If a blob is neither an archive nor compressed in a permitted way, the error names its
compression.

Format: composefs-rs 0.9, ``composefs-oci/src/tar.rs`` ("Streams written for an OCI image").
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Generator, Iterable, Iterator

import zstandard

from bootc.errors import Error
from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, OciDigest, check_digest
from bootc.formats.splitstream import StreamReader, StreamWriter
from bootc.formats.tar import Entry, HeaderReader
from bootc.formats.tarvalues import TarError
from bootc.formats.tree import INLINE_MAX_BYTES, External, Inline
from bootc.oci.blob import CHUNK_BYTES, Blob
from bootc.repository.sink import ObjectSink

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
#: The first bytes of common compressions, for error messages.
_MAGICS = {
    "gzip": (_GZIP_MAGIC,),
    "zstd": (_ZSTD_MAGIC, *(magic.to_bytes(4, "little") for magic in _ZSTD_SKIPPABLE)),
    "xz": (b"\xfd7zXZ\0",),
    "bzip2": tuple(b"BZh%d" % level for level in range(1, 10)),
    "lzma": (b"\x5d\0\0",),
    "lz4": (b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18"),
    "lzip": (b"LZIP",),
    "lzop": (b"\x89LZO\0",),
    "compress": (b"\x1f\x9d", b"\x1f\xa0"),
    "zip": (b"PK\3\4",),
}
_LONGEST_MAGIC = 6
_GZIP_WBITS = 31
#: A few bytes of zstd data can become 128 KiB each. Small steps bound the memory.
_ZSTD_FEED_BYTES = 1 << 10


class LayerError(Error):
    """A layer cannot be decompressed."""


class WrongCompression(LayerError):
    """A layer is compressed in a way that is not permitted, or twice."""

    def __init__(self, inner: str, outer: str | None) -> None:
        if outer is None:
            text = f"it is compressed by {inner}, which layers cannot be"
        else:
            text = f"it is compressed twice, by {inner} within {outer}, which layers cannot be"
        super().__init__(text, hint="compress it by gzip or zstd, or not at all")


def split_layer(blob: Blob, diff_id: OciDigest, sink: ObjectSink) -> bytes:
    """Unpack a layer into objects, and return the splitstream that puts it together again.

    Raises:
        DigestMismatch: the blob or the unpacked archive does not have its digest.
        WrongCompression: the compression is not permitted for layers.
        LayerError: the compressed data is truncated or corrupt.
        TarError: the unpacked data is not a tar archive.
    """
    found = diff_id.new()
    first = _First(blob)

    def hashed() -> Iterator[bytes]:
        for chunk in decompress(first):
            found.update(chunk)
            yield chunk

    try:
        stream = _split(_Chunks(hashed()), sink, first)
    except (LayerError, TarError):
        # If the blob does not have its digest, the user should get that error instead.
        _drain(blob)
        raise
    check_digest("the unpacked layer", found.hexdigest(), diff_id)
    return stream


def entries(
    stream: StreamReader, algorithm: Algorithm
) -> Iterator[tuple[Entry, Inline | External]]:
    """Yield the entries of a stored layer. Only regular files have content.

    Raises:
        SplitstreamError, TarError: the stream does not hold a layer.
    """
    stream.expect(splitstream.OCI_LAYER, algorithm)
    for entry in HeaderReader(stream.read):
        content: Inline | External
        if entry.size_bytes > INLINE_MAX_BYTES:
            content = External(stream.external(), entry.size_bytes)
        else:
            content = Inline(stream.read(entry.size_bytes))
            if content.size_bytes != entry.size_bytes:
                raise TarError("truncated body", entry.body_offset, entry=entry.path)
        stream.read(entry.padding_bytes)
        yield entry, content


def bodies_of(blob: Blob, wanted: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
    """Read the bodies of some entries of a layer again, because nothing has stored them.

    Args:
        blob: The layer.
        wanted: The entries, in the order of the archive.

    Raises:
        DigestMismatch, LayerError, TarError: the layer has changed.
    """
    archive = _Chunks(decompress(blob))
    at = 0
    for entry in wanted:
        for _ in archive.pieces(entry.body_offset - at, at, entry.path):
            pass
        at = entry.body_offset + entry.size_bytes
        yield entry, b"".join(archive.pieces(entry.size_bytes, entry.body_offset, entry.path))
    _drain(blob)


def paths_of(blob: Blob) -> Generator[str, None, None]:
    """Yield the paths of a layer's entries, and check the blob at the end. Nothing is stored.

    A path has no leading ``/`` or ``./``. The caller reads to the end, or closes the iterator.

    Raises:
        DigestMismatch, LayerError, TarError: the layer is damaged.
    """
    archive = _Chunks(decompress(blob))
    try:
        for entry in HeaderReader(archive.read):
            path = os.path.normpath(entry.path.lstrip(b"/"))
            yield path.decode("utf-8", "surrogateescape")
            rest = entry.size_bytes + entry.padding_bytes
            for _ in archive.pieces(rest, entry.body_offset, entry.path):
                pass
    finally:
        _drain(blob)


def decompress(blob: Blob) -> Iterator[bytes]:
    """Yield the content of a blob that is compressed by gzip or zstd, or uncompressed.

    Raises:
        LayerError: the compressed data is truncated or corrupt.
    """
    first = b""
    while len(first) < len(_ZSTD_MAGIC) and (part := blob.read(CHUNK_BYTES)):
        first += part
    if first.startswith(_GZIP_MAGIC):
        yield from _gunzip(first, blob)
    elif first.startswith(_ZSTD_MAGIC) or int.from_bytes(first[:4], "little") in _ZSTD_SKIPPABLE:
        yield from _unzstd(first, blob)
    else:
        while first:
            yield first
            first = blob.read(CHUNK_BYTES)


def _drain(blob: Blob) -> None:
    """Read to the end, where a verified blob compares its digest."""
    while blob.read(CHUNK_BYTES):
        pass


def _gunzip(data: bytes, blob: Blob) -> Iterator[bytes]:
    """Decompress gzip members until the blob ends."""
    member = zlib.decompressobj(_GZIP_WBITS)
    while data:
        if member.eof:
            member = zlib.decompressobj(_GZIP_WBITS)
        yield from _inflate(member, data)
        data = member.unused_data or blob.read(CHUNK_BYTES)
    if not member.eof:
        raise LayerError("truncated gzip data")


def _inflate(member: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    """Yield the decompressed ``data`` in bounded pieces, however large it becomes."""
    try:
        while (out := member.decompress(data, CHUNK_BYTES)) or member.unconsumed_tail:
            if out:
                yield out
            data = member.unconsumed_tail
            if member.eof:
                return
    except zlib.error as exc:
        raise LayerError(f"corrupt gzip data: {exc}") from exc


def _unzstd(data: bytes, blob: Blob) -> Iterator[bytes]:
    """Decompress zstd frames until the blob ends."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    while data:
        for at in range(0, len(data), _ZSTD_FEED_BYTES):
            piece = data[at : at + _ZSTD_FEED_BYTES]
            while piece:
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                try:
                    out = frame.decompress(piece)
                except (zstandard.ZstdError, MemoryError) as exc:
                    raise LayerError(f"corrupt zstd data: {exc}") from exc
                if out:
                    yield out
                piece = frame.unused_data if frame.eof else b""
        data = blob.read(CHUNK_BYTES)
    if not frame.eof:
        raise LayerError("truncated zstd data")


class _Chunks:
    """Exact reads from an iterator of chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = memoryview(b"")
        #: The first bytes of all.
        self.first = b""

    def some(self, limit: int) -> memoryview:
        """Return at most ``limit`` bytes, and no bytes at the end."""
        if not self._buffer:
            self._buffer = memoryview(next(self._chunks, b""))
            if len(self.first) < _LONGEST_MAGIC:
                self.first += bytes(self._buffer[:_LONGEST_MAGIC])
        piece, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return piece

    def read(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer only at the end."""
        piece = self.some(size)
        if len(piece) == size:
            return bytes(piece)
        parts = [piece]
        size -= len(piece)
        while size and (piece := self.some(size)):
            parts.append(piece)
            size -= len(piece)
        return b"".join(parts)

    def pieces(self, size: int, offset: int, entry: bytes) -> Iterator[memoryview]:
        """Yield exactly ``size`` bytes.

        ``offset`` and ``entry`` are for the message: the position, and the path of the entry.

        Raises:
            TarError: the archive ends too early.
        """
        while size:
            piece = self.some(size)
            if not piece:
                raise TarError("truncated body", offset, entry=entry)
            size -= len(piece)
            yield piece


class _First:
    """A blob that remembers its first bytes."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self.bytes = b""

    def read(self, size: int, /) -> bytes:
        data = self._blob.read(size)
        if len(self.bytes) < _LONGEST_MAGIC:
            self.bytes += data[:_LONGEST_MAGIC]
        return data


def _compression(first: bytes) -> str | None:
    """Return the compression of data with these first bytes, or None."""
    return next((name for name, magics in _MAGICS.items() if first.startswith(magics)), None)


def _check_is_archive(archive: _Chunks, blob: _First) -> None:
    """Explain a wrong first header by the first bytes of the archive.

    Call this only for a wrong header: a right header may begin with any name.
    """
    if inner := _compression(archive.first):
        outer = _compression(blob.bytes)
        raise WrongCompression(inner, outer if outer in ("gzip", "zstd") else None) from None


def _split(archive: _Chunks, sink: ObjectSink, blob: _First) -> bytes:
    stream = StreamWriter(sink.algorithm, splitstream.OCI_LAYER)
    headers = HeaderReader(archive.read)
    members = iter(headers)
    try:
        first = next(members, None)
    except TarError:
        _check_is_archive(archive, blob)
        raise
    for entry in () if first is None else itertools.chain((first,), members):
        stream.inline(entry.raw)
        body = archive.pieces(entry.size_bytes, entry.body_offset, entry.path)
        if entry.size_bytes > INLINE_MAX_BYTES:
            with sink.writer() as writer:
                for piece in body:
                    writer.write(piece)
                stream.external(writer.commit(), entry.size_bytes)
        else:
            stream.inline(b"".join(body))
        stream.inline(archive.read(entry.padding_bytes))
    stream.inline(headers.trailer)
    while rest := archive.some(CHUNK_BYTES):
        stream.inline(rest)
    return stream.finish()
