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
from bootc.formats.digest import Algorithm, Digest, OciDigest, check_digest
from bootc.formats.splitstream import StreamReader, StreamWriter
from bootc.formats.tar import Entry, HeaderReader
from bootc.formats.tarsparse import SparseMap, expanded
from bootc.formats.tarvalues import TarError
from bootc.formats.tree import INLINE_MAX_BYTES, External, Inline
from bootc.fs.content_sink import ContentWriter
from bootc.oci import budget
from bootc.oci.batches import LARGEST_BYTES, BatchedStream
from bootc.oci.blob import CHUNK_BYTES, Blob, LayerError
from bootc.oci.decompress import LONGEST_MAGIC, WrongCompression, compression_of, decompress
from bootc.oci.readahead import ReadAhead
from bootc.printable import shown
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

    def hashed() -> Generator[bytes, None, None]:
        for chunk in decompress(first):
            found.update(chunk)
            yield chunk

    error: LayerError | TarError | None = None
    with ReadAhead(hashed()) as chunks:
        try:
            writer = StreamWriter(sink.algorithm, splitstream.OCI_LAYER)
            with BatchedStream(writer, sink) as batches:
                stream = _split(_Chunks(chunks), sink, batches, first)
        except (LayerError, TarError) as exc:
            error = _cause(exc, chunks)
    if error is not None:
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
        LayerError: the stream is of a version that did not keep the content of sparse files.
    """
    stream.expect(splitstream.OCI_LAYER, algorithm)
    kept: Iterator[Digest] | None = None
    for entry in HeaderReader(stream.read):
        content: Inline | External
        if entry.sparse is not None:
            kept = stream.kept() if kept is None else kept
            content = _sparse_content(entry, entry.sparse, stream, kept)
        elif entry.size_bytes > INLINE_MAX_BYTES:
            content = External(stream.external(), entry.size_bytes)
        else:
            content = Inline(stream.read(entry.size_bytes))
            if content.size_bytes != entry.size_bytes:
                raise TarError("truncated body", entry.body_offset, entry=entry.path)
        stream.read(entry.padding_bytes)
        yield entry, content


def _sparse_content(
    entry: Entry, sparse: SparseMap, stream: StreamReader, kept: Iterator[Digest]
) -> Inline | External:
    if is_inline(entry):
        body = stream.read(entry.size_bytes)
        if len(body) != entry.size_bytes:
            raise TarError("truncated body", entry.body_offset, entry=entry.path)
        if sparse.size_bytes <= INLINE_MAX_BYTES:
            return Inline(b"".join(expanded(sparse, len(body), [body], entry.body_offset)))
    else:
        stream.external()
    digest = next(kept, None)
    if digest is None:
        raise LayerError(
            f"an earlier version stored the layer without the content of the sparse file "
            f"{shown(entry.path)}",
            hint="remove what nothing needs (bootc internals cfs gc), and pull again",
        )
    return External(digest, sparse.size_bytes)


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
        body: Iterable[bytes | memoryview]
        body = archive.pieces(entry.size_bytes, entry.body_offset, entry.path)
        if entry.sparse is not None:
            body = expanded(entry.sparse, entry.size_bytes, body, entry.body_offset)
        yield entry, b"".join(body)
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


def is_inline(entry: Entry) -> bool:
    """Tell whether the body of an entry is in the stream, and is no object of its own."""
    if entry.sparse is not None and entry.sparse.size_bytes <= INLINE_MAX_BYTES:
        # The content of small files is in images, so readers need the body.
        return True
    return entry.size_bytes <= INLINE_MAX_BYTES


class _SparseFiles:
    """Sparse files of a layer: the stream has their bodies, and refers to their contents."""

    def __init__(self, sink: ObjectSink) -> None:
        self._sink = sink
        self._holes_left = budget.MAX_HOLE_BYTES

    def split(
        self, entry: Entry, sparse: SparseMap, archive: _Chunks, stream: BatchedStream
    ) -> None:
        """Put a body into a stream, and the content that it stands for into an object."""
        offset = entry.body_offset
        self._holes_left -= max(0, sparse.size_bytes - entry.size_bytes)
        if self._holes_left < 0:
            what = (
                f"sparse files of the layer have holes of more than {budget.MAX_HOLE_BYTES} bytes"
            )
            raise TarError(what, offset, entry=entry.path)
        body = archive.pieces(entry.size_bytes, offset, entry.path)
        try:
            if is_inline(entry):
                if entry.size_bytes > budget.MAX_SMALL_SPARSE_BYTES:
                    raise TarError("a sparse map larger than its file", offset)
                data = b"".join(body)
                stream.inline(data)
                content = expanded(sparse, len(data), [data], offset)
                if sparse.size_bytes <= INLINE_MAX_BYTES:
                    b"".join(content)
                    return
                digest = self._store(content)
            else:
                with self._sink.writer() as packed:
                    content = expanded(sparse, entry.size_bytes, _written(body, packed), offset)
                    digest = self._store(content)
                    stream.external(packed.commit(), entry.size_bytes)
        except TarError as exc:
            raise exc.inside(entry.path) from None
        stream.keep(digest)

    def _store(self, content: Iterable[bytes | memoryview]) -> Digest:
        with self._sink.writer() as writer:
            for piece in content:
                writer.write(piece)
            return writer.commit()


def _written(body: Iterable[memoryview], writer: ContentWriter) -> Iterator[memoryview]:
    """Write what is read of a body."""
    for piece in body:
        writer.write(piece)
        yield piece


def _split(archive: _Chunks, sink: ObjectSink, stream: BatchedStream, blob: _First) -> bytes:
    headers = HeaderReader(archive.read)
    sparse_files = _SparseFiles(sink)
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
        if entry.sparse is not None:
            sparse_files.split(entry, entry.sparse, archive, stream)
            stream.inline(archive.read(entry.padding_bytes))
            continue
        body = archive.pieces(entry.size_bytes, entry.body_offset, entry.path)
        if entry.size_bytes > LARGEST_BYTES:
            with sink.writer() as writer:
                for piece in body:
                    writer.write(piece)
                stream.external(writer.commit(), entry.size_bytes)
        elif entry.size_bytes > INLINE_MAX_BYTES:
            stream.content(b"".join(body))
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
        stream.inline(bytes(rest))
    return stream.finish()
