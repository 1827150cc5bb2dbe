"""Splitstreams: a byte stream whose large pieces are objects of the repository.

A :class:`StreamWriter` takes inline bytes and references to objects; a
:class:`StreamReader` returns them in order. Writers emit the current header; readers also
know the older one (fields in another order, bootc up to 1.15).

Promises: the reader returns exactly the bytes that were written. The stored form equals
that of composefs-rs if libzstd compresses alike; nothing relies on that, since streams
are found by content id. Hostile bytes raise :class:`SplitstreamError`
with an offset, and no piece handed out is larger than asked for. Reader and writer
apply the same limits (:data:`MAX_STREAM_BYTES`, :data:`MAX_NAMED_REFS`), so a stream
that was written can be read.

Layout (little endian): 32-byte header, 80-byte info block, digests of referred
streams, digests of objects, zstd of the named references, zstd of the body. The
body is a sequence of i64: ``-n`` and n inline bytes, or the index of an object.

Format: composefs-rs 0.9, ``composefs/src/splitstream.rs``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

import zstandard

from bootc.errors import Error
from bootc.formats.digest import Algorithm, Digest

MAGIC = b"SplitStream"
LG_BLOCKSIZE = 12

#: Content types of the streams of an OCI image.
OCI_LAYER = b"ocilayer"
OCI_CONFIG = b"ociconfg"
OCI_MANIFEST = b"ocimanif"

_HEADER = struct.Struct("<11sBHBBQQ")
_OLD_HEADER = struct.Struct("<QQH11sBBB")
_INFO = struct.Struct("<8Q8sQ")
_CHUNK = struct.Struct("<q")
_ZSTD_LEVEL = 3
#: Inline data held back so that neighbours merge; beyond it a piece is written out.
_MERGE_BYTES = 1 << 24
#: Compressed bytes decompressed at a time: at worst they swell to 64 MiB.
_FEED_BYTES = 1 << 10

#: A stream is read as a whole. The stream of a layer with a million files has half as much.
MAX_STREAM_BYTES = 256 << 20
#: A stream names each layer of an image, and the images made of it: some hundred at most.
MAX_NAMED_REFS = 1 << 16
_MAX_NAMES_BYTES = 4 << 20


class StreamTooLarge(Error):
    """A stream would be larger than readers accept."""


class SplitstreamError(Error):
    """Bytes are not a splitstream."""

    def __init__(self, what: str, offset: int) -> None:
        super().__init__(f"bad splitstream: {what} at offset {offset}")
        self.offset = offset


class StreamWriter:
    """Builds one stream in memory. It contains references to objects, not their content."""

    def __init__(self, algorithm: Algorithm, content_type: bytes) -> None:
        self._algorithm = algorithm
        self._content_type = content_type
        self._stream_refs: dict[Digest, int] = {}
        self._object_refs: list[Digest] = []
        self._places: dict[Digest, int] = {}
        self._names: dict[bytes, int] = {}
        self._size_bytes = 0
        self._inline: list[bytes] = []
        self._inline_bytes = 0
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
        self._body: list[bytes] = []
        self._stored_bytes = 0

    def refer(self, name: str, stream: Digest) -> None:
        """Add a named reference. It replaces an earlier one of the same name.

        Raises:
            StreamTooLarge: there are :data:`MAX_NAMED_REFS` of them.
        """
        if len(self._stream_refs) >= MAX_NAMED_REFS and stream not in self._stream_refs:
            raise StreamTooLarge(f"a stream has no room for more than {MAX_NAMED_REFS} references")
        index = self._stream_refs.setdefault(stream, len(self._stream_refs))
        self._names[name.encode()] = index

    def inline(self, data: bytes | memoryview) -> None:
        """Append bytes kept in the stream itself.

        Raises:
            StreamTooLarge: the stream would have more than :data:`MAX_STREAM_BYTES`.
        """
        if not data:
            return
        self._inline.append(bytes(data))
        self._inline_bytes += len(data)
        self._size_bytes += len(data)
        if self._inline_bytes >= _MERGE_BYTES:
            self._flush_inline()

    def external(self, digest: Digest, size_bytes: int) -> None:
        """Append the content of an object.

        Raises:
            StreamTooLarge: as :meth:`inline`.
        """
        self._flush_inline()
        place = self._places.get(digest)
        if place is None:
            place = self._places[digest] = self._add_object(digest)
        self._keep(self._compressor.compress(_CHUNK.pack(place)))
        self._size_bytes += size_bytes

    def keep(self, digest: Digest) -> None:
        """Refer to an object that is no part of the content.

        The reader returns these in order (:meth:`StreamReader.kept`).

        Raises:
            StreamTooLarge: as :meth:`inline`.
        """
        self._add_object(digest)
        check_stream_size(self._stored_bytes)

    def _add_object(self, digest: Digest) -> int:
        self._object_refs.append(digest)
        self._stored_bytes += self._algorithm.digest_size
        return len(self._object_refs) - 1

    def finish(self) -> bytes:
        """Return the stream. The writer cannot be used afterwards.

        Raises:
            StreamTooLarge: as :meth:`inline` and :meth:`refer`.
        """
        self._flush_inline()
        self._keep(self._compressor.flush())
        stream_refs = b"".join(digest.raw for digest in self._stream_refs)
        object_refs = b"".join(digest.raw for digest in self._object_refs)
        names = b"".join(b"%d:%s\0" % (index, name) for name, index in sorted(self._names.items()))
        if len(names) > _MAX_NAMES_BYTES or len(self._names) > MAX_NAMED_REFS:
            raise StreamTooLarge(f"{len(self._names)} references are too many for a stream")
        refs = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
        named_refs = refs.compress(names) + refs.flush()
        body = b"".join(self._body)
        info_end = _HEADER.size + _INFO.size
        objects_start = info_end + len(stream_refs)
        named_start = objects_start + len(object_refs)
        body_start = named_start + len(named_refs)
        header = _HEADER.pack(
            MAGIC, 0, 0, self._algorithm.value, LG_BLOCKSIZE, _HEADER.size, info_end
        )
        info = _INFO.pack(
            *(info_end, objects_start),
            *(objects_start, named_start),
            *(body_start, body_start + len(body)),
            *(named_start, body_start),
            self._content_type,
            self._size_bytes,
        )
        stream = b"".join((header, info, stream_refs, object_refs, named_refs, body))
        check_stream_size(len(stream))
        return stream

    def _flush_inline(self) -> None:
        if self._inline_bytes:
            self._keep(self._compressor.compress(_CHUNK.pack(-self._inline_bytes)))
            for part in self._inline:
                self._keep(self._compressor.compress(part))
            self._inline.clear()
            self._inline_bytes = 0

    def _keep(self, compressed: bytes) -> None:
        """Add to the body, and stop as soon as it is known to be too large."""
        if compressed:
            self._body.append(compressed)
            self._stored_bytes += len(compressed)
        check_stream_size(self._stored_bytes)


def check_stream_size(size_bytes: int) -> None:
    """Refuse a stream that readers would not accept.

    Raises:
        StreamTooLarge: it has more than :data:`MAX_STREAM_BYTES`.
    """
    if size_bytes > MAX_STREAM_BYTES:
        raise StreamTooLarge(
            f"the stream would have more than {MAX_STREAM_BYTES} bytes, the limit for one layer",
            hint="split the layer: its headers and small files alone are too large",
        )


class Digests(Sequence[Digest]):
    """Digests one after another, made into values when they are asked for.

    A layer may have a million, each of which takes four times its bytes as a value.
    """

    __slots__ = ("_algorithm", "_raw")

    def __init__(self, algorithm: Algorithm, raw: bytes | memoryview) -> None:
        self._algorithm = algorithm
        self._raw = raw

    def __len__(self) -> int:
        return len(self._raw) // self._algorithm.digest_size

    @overload
    def __getitem__(self, index: int) -> Digest: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Digest, ...]: ...
    def __getitem__(self, index: int | slice) -> Digest | tuple[Digest, ...]:
        """Return one digest, or a tuple of some."""
        if isinstance(index, slice):
            return tuple(self[at] for at in range(*index.indices(len(self))))
        at = range(len(self))[index] * self._algorithm.digest_size
        return Digest(self._algorithm, bytes(self._raw[at : at + self._algorithm.digest_size]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


class _Range(NamedTuple):
    start: int
    end: int


class StreamReader:
    """One stream: its references, and its body, which is read once from start to end.

    Raises:
        SplitstreamError: the header or the references are wrong.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_STREAM_BYTES:
            raise SplitstreamError(f"more than {MAX_STREAM_BYTES} bytes", MAX_STREAM_BYTES)
        self._data = memoryview(data)
        algorithm, info = self._header()
        if info.end - info.start < _INFO.size:
            raise SplitstreamError("info block too short", info.start)
        fields = _INFO.unpack_from(self._data, info.start)
        ranges = [self._range(fields[i], fields[i + 1], info.start) for i in (0, 2, 4, 6)]
        self.algorithm = algorithm
        self.content_type: bytes = fields[8]
        self.size_bytes: int = fields[9]
        self.stream_refs = self._digests(ranges[0])
        if len(self.stream_refs) > MAX_NAMED_REFS:
            raise SplitstreamError("too many references to streams", ranges[0].start)
        self.object_refs = self._digests(ranges[1])
        self.named_refs = self._named_refs(ranges[3])
        self._body_start = ranges[2].start
        self._chunks = _inflate(self._data[ranges[2].start : ranges[2].end], ranges[2].start)
        self._buffer = b""
        self._at = 0
        self._inline_left = 0
        self._position = 0

    def kept(self) -> Iterator[Digest]:
        """Yield the objects that are no part of the content, in their order.

        Raises:
            SplitstreamError: the body is wrong.
        """
        used = bytearray(len(self.object_refs))
        again = StreamReader(bytes(self._data))
        while (index := again._next_index()) is not None:
            again._inline_left = max(0, -index)
            while again._inline_left:
                part = again._take(again._inline_left)
                if not part:
                    raise again._error("truncated body")
                again._inline_left -= len(part)
            if index >= 0:
                again._object(index)
                used[index] = 1
        return (self.object_refs[index] for index, flag in enumerate(used) if not flag)

    def expect(self, content_type: bytes, algorithm: Algorithm) -> None:
        """Check what kind of stream this is.

        Raises:
            SplitstreamError: another content type, or digests of another algorithm.
        """
        if self.content_type != content_type:
            raise SplitstreamError(
                f"content type {self.content_type!r} instead of {content_type!r}", 0
            )
        if self.algorithm is not algorithm:
            raise SplitstreamError(f"digests are {self.algorithm.hash_name}", 0)

    def read(self, size: int) -> bytes:
        """Return exactly ``size`` inline bytes, fewer only at the end of the stream.

        Raises:
            SplitstreamError: an object comes where inline bytes were wanted.
        """
        parts = []
        while size:
            if not self._inline_left:
                index = self._next_index()
                if index is None:
                    break
                if index >= 0:
                    raise self._error("an object where inline bytes belong")
                self._inline_left = -index
            part = self._take(min(size, self._inline_left))
            if not part:
                raise self._error("truncated body")
            self._inline_left -= len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def external(self) -> Digest:
        """Return the object that comes next.

        Raises:
            SplitstreamError: something else comes next.
        """
        index = None if self._inline_left else self._next_index()
        if index is None or index < 0:
            raise self._error("no object where one belongs")
        return self._object(index)

    def chunks(self, largest: int = 1 << 16) -> Iterator[bytes | Digest]:
        """Yield the rest of the body: inline pieces up to ``largest`` bytes, and objects.

        Raises:
            SplitstreamError: the body is wrong.
        """
        while True:
            while self._inline_left:
                yield self.read(min(largest, self._inline_left))
            index = self._next_index()
            if index is None:
                return
            if index >= 0:
                yield self._object(index)
            else:
                self._inline_left = -index

    def _header(self) -> tuple[Algorithm, _Range]:
        data = self._data
        if len(data) < _HEADER.size:
            raise SplitstreamError("truncated header", len(data))
        magic, version, _, algorithm, lg_blocksize, start, end = _HEADER.unpack_from(data)
        if magic != MAGIC:
            start, end, _, magic, version, algorithm, lg_blocksize = _OLD_HEADER.unpack_from(data)
        if magic != MAGIC:
            raise SplitstreamError("no magic", 0)
        if version != 0 or lg_blocksize != LG_BLOCKSIZE or algorithm not in (1, 2):
            raise SplitstreamError("unknown version, algorithm or block size", 0)
        return Algorithm(algorithm), self._range(start, end, 0)

    def _range(self, start: int, end: int, offset: int) -> _Range:
        if not start <= end <= len(self._data):
            raise SplitstreamError(f"range {start}..{end} outside the stream", offset)
        return _Range(start, end)

    def _digests(self, span: _Range) -> Digests:
        if (span.end - span.start) % self.algorithm.digest_size:
            raise SplitstreamError("part of a digest", span.start)
        return Digests(self.algorithm, self._data[span.start : span.end])

    def _named_refs(self, span: _Range) -> dict[str, Digest]:
        text = bytearray()
        for part in _inflate(self._data[span.start : span.end], span.start):
            text += part
            if len(text) > _MAX_NAMES_BYTES:
                raise SplitstreamError("too many named references", span.start)
        if text and text[-1]:
            raise SplitstreamError("unterminated named reference", span.start)
        if text.count(b"\0") > MAX_NAMED_REFS:
            raise SplitstreamError("too many named references", span.start)
        refs = {}
        for record in bytes(text).split(b"\0")[:-1]:
            index, colon, name = record.partition(b":")
            if not colon or not index.isdigit() or len(index) > 9:
                raise SplitstreamError("bad named reference", span.start)
            if int(index) >= len(self.stream_refs):
                raise SplitstreamError("named reference to no stream", span.start)
            refs[name.decode("utf-8", "surrogateescape")] = self.stream_refs[int(index)]
        return refs

    def _object(self, index: int) -> Digest:
        if index >= len(self.object_refs):
            raise self._error(f"object {index} of {len(self.object_refs)}")
        return self.object_refs[index]

    def _next_index(self) -> int | None:
        """Return the number that starts the next chunk, or None at the end of the body."""
        raw = b""
        while len(raw) < _CHUNK.size:
            part = self._take(_CHUNK.size - len(raw))
            if not part and raw:
                raise self._error("truncated body")
            if not part:
                return None
            raw += part
        (index,) = _CHUNK.unpack(raw)
        if -index > self.size_bytes:
            raise self._error("inline piece larger than the stream")
        return int(index)

    def _take(self, limit: int) -> bytes:
        """Return some decompressed bytes, none at the end."""
        if self._at == len(self._buffer):
            self._buffer = next(self._chunks, b"")
            self._at = 0
        data = self._buffer[self._at : self._at + limit]
        self._at += len(data)
        self._position += len(data)
        return data

    def _error(self, what: str) -> SplitstreamError:
        # Bytes of the body have no offset of their own: it is compressed.
        return SplitstreamError(f"{what} (byte {self._position} of the body)", self._body_start)


def _inflate(data: memoryview, offset: int) -> Iterator[bytes]:
    """Decompress one zstd frame piece by piece."""
    frame = zstandard.ZstdDecompressor().decompressobj()
    for at in range(0, len(data), _FEED_BYTES):
        if frame.eof:
            raise SplitstreamError("bytes after the compressed data", offset + at)
        try:
            part = frame.decompress(data[at : at + _FEED_BYTES])
        except (zstandard.ZstdError, MemoryError):
            raise SplitstreamError("corrupt compressed data", offset + at) from None
        if part:
            yield part
    if not frame.eof or frame.unused_data:
        raise SplitstreamError("compressed data ends early or late", offset + len(data))
