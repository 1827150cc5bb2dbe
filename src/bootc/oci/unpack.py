"""A blob of a layer, split into a splitstream and objects, and a splitstream read as entries.

- Memory stays constant whatever the layer holds, except for the compressed inline bytes.
- The archive can be put together again bit by bit.
- :func:`split_layer` returns a stream only after it has compared the digest of the blob and the
  ``diff_id`` of the layer.

Format: composefs-rs 0.9, ``composefs-oci/src/tar.rs`` ("Streams written for an OCI image").
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Iterable, Iterator

from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, OciDigest, check_digest
from bootc.formats.splitstream import StreamReader, StreamWriter
from bootc.formats.tar import Entry, HeaderReader
from bootc.formats.tarvalues import TarError
from bootc.formats.tree import INLINE_MAX_BYTES, External, Inline
from bootc.oci import budget
from bootc.oci.blob import CHUNK_BYTES, Blob, LayerError
from bootc.oci.decompress import LONGEST_MAGIC, WrongCompression, compression_of, decompress
from bootc.repository.sink import ObjectSink

#: Chunks after a wrong header in which damage of the compressed data is looked for.
_LOOK_AHEAD = 16


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

    chunks = hashed()
    try:
        stream = _split(_Chunks(chunks), sink, first)
    except (LayerError, TarError) as exc:
        error = _cause(exc, chunks)
        # If the blob does not have its digest, the user should get that error instead.
        _drain(blob)
        raise error from None
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


def _cause(error: LayerError | TarError, chunks: Iterator[bytes]) -> LayerError | TarError:
    """Return the damage of compressed data that made the archive wrong, if there is some.

    A library may return wrong bytes before it notices that they are wrong.
    """
    if isinstance(error, TarError):
        try:
            for _ in itertools.islice(chunks, _LOOK_AHEAD):
                pass
        except LayerError as damage:
            return damage
    return error


def _drain(blob: Blob) -> None:
    """Read to the end, where a verified blob compares its digest."""
    while blob.read(CHUNK_BYTES):
        pass


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
            if len(self.first) < LONGEST_MAGIC:
                self.first += bytes(self._buffer[:LONGEST_MAGIC])
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
        if len(self.bytes) < LONGEST_MAGIC:
            self.bytes += data[:LONGEST_MAGIC]
        return data


def _check_is_archive(archive: _Chunks, blob: _First) -> None:
    """Explain a wrong first header by the first bytes of the archive.

    Call this only for a wrong header: a right header may begin with any name.
    """
    if inner := compression_of(archive.first):
        outer = compression_of(blob.bytes)
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
    for number, entry in enumerate(() if first is None else itertools.chain((first,), members)):
        if number == budget.MAX_ENTRIES:
            what = f"more than {budget.MAX_ENTRIES} entries, the limit for an image,"
            raise TarError(what, entry.offset, entry=entry.path)
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
    left = budget.MAX_TRAILING_BYTES
    while rest := archive.some(CHUNK_BYTES):
        left -= len(rest)
        if left < 0:
            raise TarError(
                f"more than {budget.MAX_TRAILING_BYTES} bytes after the end of the archive",
                headers.offset,
            )
        stream.inline(rest)
    return stream.finish()
