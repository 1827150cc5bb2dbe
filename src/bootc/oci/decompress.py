"""The content of blobs of layers, decompressed in bounded memory.

The first bytes of a blob tell its compression, not the media type: archives of ``docker save``
give uncompressed layers the type of compressed layers, and the ``diff_id`` protects the result in
both cases. Of gzip all members are read, of zstd all frames; skippable frames, in which
zstd:chunked has its index, are skipped. If a blob is neither an archive nor compressed in a
permitted way, the error of the caller names its compression.
"""

from __future__ import annotations

from collections.abc import Iterator

import zstandard

from bootc.oci.blob import CHUNK_BYTES, Blob, LayerError
from bootc.oci.inflate import GZIP_MAGIC, Inflater, fastest, gunzip

#: No layer is larger when it is decompressed: what a few bytes become must end somewhere.
MAX_LAYER_BYTES = 1 << 38

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
#: The first bytes of common compressions, for error messages.
_MAGICS = {
    "gzip": (GZIP_MAGIC,),
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
LONGEST_MAGIC = 6
#: A few bytes of zstd data can become 128 KiB each. Small steps bound the memory.
_ZSTD_FEED_BYTES = 1 << 10


class WrongCompression(LayerError):
    """A layer is compressed in a way that is not permitted, or twice."""

    def __init__(self, inner: str, outer: str | None) -> None:
        if outer is None:
            text = f"it is compressed by {inner}, which layers cannot be"
        else:
            text = f"it is compressed twice, by {inner} within {outer}, which layers cannot be"
        super().__init__(text, hint="compress it by gzip or zstd, or not at all")


def compression_of(first: bytes) -> str | None:
    """Return the compression of data with these first bytes, or None."""
    return next((name for name, magics in _MAGICS.items() if first.startswith(magics)), None)


def decompress(blob: Blob, inflater: Inflater | None = None) -> Iterator[bytes]:
    """Yield the content of a blob that is compressed by gzip or zstd, or uncompressed.

    Args:
        blob: The blob.
        inflater: Decompresses gzip; the fastest library that is installed if None.

    Raises:
        LayerError: the compressed data is truncated or corrupt, or becomes too large.
    """
    left = MAX_LAYER_BYTES
    for chunk in _content(blob, inflater):
        left -= len(chunk)
        if left < 0:
            raise LayerError(
                f"the layer has more than {MAX_LAYER_BYTES} bytes when it is decompressed",
                hint="no layer may be larger: split it",
            )
        yield chunk


def _content(blob: Blob, inflater: Inflater | None) -> Iterator[bytes]:
    first = b""
    while len(first) < len(_ZSTD_MAGIC) and (part := blob.read(CHUNK_BYTES)):
        first += part
    if first.startswith(GZIP_MAGIC):
        yield from gunzip(first, blob, inflater or fastest())
    elif first.startswith(_ZSTD_MAGIC) or int.from_bytes(first[:4], "little") in _ZSTD_SKIPPABLE:
        yield from _unzstd(first, blob)
    else:
        while first:
            yield first
            first = blob.read(CHUNK_BYTES)


def _unzstd(data: bytes, blob: Blob) -> Iterator[bytes]:
    """Decompress zstd frames until the blob ends."""
    # One for all frames: zstd:chunked has a frame for each file.
    decompressor = zstandard.ZstdDecompressor()
    frame = decompressor.decompressobj()
    while data:
        for at in range(0, len(data), _ZSTD_FEED_BYTES):
            piece = data[at : at + _ZSTD_FEED_BYTES]
            while piece:
                if frame.eof:
                    frame = decompressor.decompressobj()
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
