"""A layer's blob to a splitstream, and a splitstream to entries.

Owns: decompression, the split of a tar archive into inline bytes and objects,
and the reading back. Promises: memory stays constant (but for the stream's own
compressed inline bytes), whatever the layer holds; the archive is stored so that
it can be put together again bit by bit; and a stream is returned only after the
blob's digest and the layer's ``diff_id`` were both found right.

Which compression a layer has is told by its first bytes, not by its media type:
archives made by ``docker save`` carry uncompressed layers under the type of
compressed ones, and the ``diff_id`` vouches for the outcome either way. What neither is an
archive nor compressed in a way that layers can be is called by the name of its compression.

Format: composefs-rs 0.9, ``composefs-oci/src/tar.rs`` ("Streams written for an
OCI image").
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator

import zstandard

from bootc.errors import Error
from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, OciDigest, check_digest
from bootc.formats.splitstream import StreamReader, StreamWriter
from bootc.formats.tar import Entry, HeaderReader, TarError
from bootc.formats.tree import INLINE_MAX_BYTES, External, Inline
from bootc.oci.blob import CHUNK_BYTES, Blob
from bootc.repository.sink import ObjectSink

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
#: What archives are compressed by elsewhere, told by their first bytes.
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
#: A few compressed zstd bytes can stand for 128 KiB each: fed in small steps they stay tame.
_ZSTD_FEED_BYTES = 1 << 10


class LayerError(Error):
    """A layer cannot be decompressed."""


class WrongCompression(LayerError):
    """A layer is compressed by a program that layers cannot be compressed by, or twice."""

    def __init__(self, inner: str, outer: str | None) -> None:
        if outer is None:
            text = f"it is compressed by {inner}, which layers cannot be"
        else:
            text = f"it is compressed twice, by {inner} within {outer}, which layers cannot be"
        super().__init__(text, hint="compress it by gzip or zstd, or not at all")


def split_layer(blob: Blob, diff_id: OciDigest, sink: ObjectSink) -> bytes:
    """Unpack a layer into objects and return the splitstream that puts it together.

    Raises:
        DigestMismatch: the blob or what it unpacks to is something else.
        WrongCompression: it is compressed in a way that layers cannot be.
        LayerError: the compressed data is truncated or corrupt.
        TarError: what it unpacks to is no tar archive.
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
        # If the blob is not even the right one, that is what the user should hear.
        _drain(blob)
        raise
    check_digest("the unpacked layer", found.hexdigest(), diff_id)
    return stream


def entries(
    stream: StreamReader, algorithm: Algorithm
) -> Iterator[tuple[Entry, Inline | External]]:
    """Yield the entries of a stored layer; anything but a regular file has empty content.

    Raises:
        SplitstreamError, TarError: the stream is not that of a layer.
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
    """Read the bodies of some entries of a layer again, for content that was not kept.

    Args:
        blob: The layer.
        wanted: The entries, in the order of the archive.

    Raises:
        DigestMismatch, LayerError, TarError: the layer is not what it was.
    """
    archive = _Chunks(decompress(blob))
    at = 0
    for entry in wanted:
        for _ in archive.pieces(entry.body_offset - at, at, entry.path):
            pass
        at = entry.body_offset + entry.size_bytes
        yield entry, b"".join(archive.pieces(entry.size_bytes, entry.body_offset, entry.path))
    _drain(blob)


def decompress(blob: Blob) -> Iterator[bytes]:
    """Yield the content of a blob that is compressed by gzip, by zstd or not at all.

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
    """Read to the end, for the verdict there."""
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
    """Yield what comes of ``data``, in pieces however large it swells."""
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
        #: How they begin.
        self.first = b""

    def some(self, limit: int) -> memoryview:
        """Return at most ``limit`` bytes, none at the end."""
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

        ``offset`` is where they begin and ``entry`` whose they are, for the message.

        Raises:
            TarError: the archive ends before.
        """
        while size:
            piece = self.some(size)
            if not piece:
                raise TarError("truncated body", offset, entry=entry)
            size -= len(piece)
            yield piece


class _First:
    """A blob that remembers how it begins."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self.bytes = b""

    def read(self, size: int, /) -> bytes:
        data = self._blob.read(size)
        if len(self.bytes) < _LONGEST_MAGIC:
            self.bytes += data[:_LONGEST_MAGIC]
        return data


def _compression(first: bytes) -> str | None:
    """Return what compresses data that begins like this, or None."""
    return next((name for name, magics in _MAGICS.items() if first.startswith(magics)), None)


def _check_is_archive(archive: _Chunks, blob: _First) -> None:
    """Look at how an archive begins whose first header is wrong.

    Only then: a right header may begin with any name.
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
