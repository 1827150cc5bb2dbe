"""Sparse members of tar archives: files whose holes the archive leaves out.

GNU tar has four formats: a map in the header (type ``S``), and three in pax headers: one record
for each number (0.0), one record with all (0.1), and a map in front of the data (1.0).

Format: GNU tar manual, "Storing Sparse Files".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from bootc.formats.tarvalues import MAX_SIZE, TarError, decimal, number

PAX_PREFIX = b"GNU.sparse."
#: Parts of one file. GNU tar writes one for each hole.
MAX_SEGMENTS = 100_000
_BLOCK_BYTES = 512
_ZEROS = bytes(1 << 16)

#: Old GNU headers: the first part of the map, whether a block with more follows, the real size.
#: In such a block: the part of the map, whether another one follows.
_DESCRIPTOR_BYTES = 24
_MAP = slice(386, 482)
_GOES_ON = 482
_REAL_SIZE = slice(483, 495)
_MORE_MAP = slice(0, 504)
_MORE_GOES_ON = 504

Segment = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SparseMap:
    """Where the data of a sparse file belongs: parts with offset and length, ascending.

    ``segments`` is None if the map is in front of the data.
    """

    size_bytes: int
    segments: tuple[Segment, ...] | None
    #: Blocks between the header and the body.
    blocks: int = 0


def goes_on(block: bytes, *, header: bool) -> bool:
    """Tell whether a block with more of the map follows an old GNU header, or such a block."""
    return bool(block[_GOES_ON if header else _MORE_GOES_ON])


def map_of_blocks(header: bytes, more: list[bytes], packed_bytes: int, offset: int) -> SparseMap:
    """Return the map of an old GNU header and the blocks that follow it.

    Raises:
        TarError: the map is wrong.
    """
    raw = header[_MAP] + b"".join(block[_MORE_MAP] for block in more)
    numbers: list[int] = []
    for at in range(0, len(raw), _DESCRIPTOR_BYTES):
        start, length = raw[at : at + 12], raw[at + 12 : at + _DESCRIPTOR_BYTES]
        # The rest of a block is not used.
        if start.strip(b"\0 ") or length.strip(b"\0 "):
            numbers += (number(field, "sparse map", offset, MAX_SIZE) for field in (start, length))
    size_bytes = number(header[_REAL_SIZE], "real size", offset, MAX_SIZE)
    segments = _segments(numbers, size_bytes, packed_bytes, offset)
    return SparseMap(size_bytes, segments, len(more))


def map_of_pax(
    pax: dict[bytes, bytes], lists: dict[bytes, list[bytes]], packed_bytes: int, offset: int
) -> SparseMap:
    """Return the map that a pax header has or announces.

    Args:
        pax: The records; of equal keys the last.
        lists: All values of the keys that begin with :data:`PAX_PREFIX`.
        packed_bytes: The size of the body.
        offset: For messages.

    Raises:
        TarError: the map is wrong.
    """
    size = pax.get(PAX_PREFIX + b"realsize") or pax.get(PAX_PREFIX + b"size") or b""
    size_bytes = decimal(size, "real size of a sparse file", offset, MAX_SIZE)
    version = pax.get(PAX_PREFIX + b"major"), pax.get(PAX_PREFIX + b"minor")
    if version == (b"1", b"0"):
        return SparseMap(size_bytes, None)
    if version not in ((None, None), (b"0", b"0"), (b"0", b"1")):
        raise TarError("a sparse file of an unknown version", offset)
    texts = lists.get(PAX_PREFIX + b"map")
    if texts is not None:
        numbers = [_number(text, offset) for text in texts[-1].split(b",") if text]
    else:
        starts, lengths = (lists.get(PAX_PREFIX + key, []) for key in (b"offset", b"numbytes"))
        if len(starts) != len(lengths):
            raise TarError("a sparse map with an odd number of numbers", offset)
        pairs = zip(starts, lengths, strict=True)
        numbers = [_number(text, offset) for pair in pairs for text in pair]
    return SparseMap(size_bytes, _segments(numbers, size_bytes, packed_bytes, offset))


def expanded(
    sparse: SparseMap, packed_bytes: int, body: Iterable[bytes | memoryview], offset: int
) -> Iterator[bytes | memoryview]:
    """Yield the content of a sparse file, with zeros for its holes, in bounded pieces.

    Args:
        sparse: The map.
        packed_bytes: The size of the body.
        body: The body in the archive; read to the end.
        offset: Of the body, for messages.

    Raises:
        TarError: the map in front of the data is wrong.
    """
    source = _Pieces(body)
    if sparse.segments is None:
        sparse = _map_of_body(sparse, source, packed_bytes, offset)
    at = 0
    for start, length in sparse.segments or ():
        yield from _hole(start - at)
        yield from source.exactly(length)
        at = start + length
    yield from _hole(sparse.size_bytes - at)


def _hole(size: int) -> Iterator[bytes]:
    while size > 0:
        yield _ZEROS[:size]
        size -= len(_ZEROS)


def _map_of_body(sparse: SparseMap, source: _Pieces, packed_bytes: int, offset: int) -> SparseMap:
    """Read the map in front of the data: decimal lines, the first with the number of parts."""
    text = b""
    wanted: int | None = None
    read = 0
    numbers: list[int] = []
    while wanted is None or len(numbers) < wanted:
        if read + _BLOCK_BYTES > packed_bytes:
            raise TarError("truncated sparse map", offset)
        text += b"".join(source.exactly(_BLOCK_BYTES))
        read += _BLOCK_BYTES
        *lines, text = text.split(b"\n")
        for line in lines:
            if wanted is None:
                wanted = 2 * decimal(line, "sparse map", offset, MAX_SEGMENTS)
            elif len(numbers) < wanted:
                numbers.append(_number(line, offset))
        if len(text) > _BLOCK_BYTES:
            raise TarError("pax sparse map is no number in range", offset)
    segments = _segments(numbers, sparse.size_bytes, packed_bytes - read, offset)
    return replace(sparse, segments=segments)


def _number(text: bytes, offset: int) -> int:
    return decimal(text, "sparse map", offset, MAX_SIZE)


def _segments(
    numbers: list[int], size_bytes: int, data_bytes: int, offset: int
) -> tuple[Segment, ...]:
    """Check a map: parts must ascend, fit the file, and have the size of the data."""
    if len(numbers) % 2 or len(numbers) > 2 * MAX_SEGMENTS:
        raise TarError("a sparse map with a wrong number of numbers", offset)
    segments = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    end = total = 0
    for start, length in segments:
        if start < end or start + length > size_bytes:
            raise TarError("a sparse map whose parts do not fit the file", offset)
        end = start + length
        total += length
    if total != data_bytes:
        raise TarError("a sparse map that does not fit the data", offset)
    return segments


class _Pieces:
    """Exact amounts of the bytes of a body."""

    def __init__(self, body: Iterable[bytes | memoryview]) -> None:
        self._body = iter(body)
        self._held = memoryview(b"")

    def exactly(self, size: int) -> Iterator[memoryview]:
        """Yield so many bytes; the body has them."""
        while size:
            if not self._held:
                self._held = memoryview(next(self._body))
            piece, self._held = self._held[:size], self._held[size:]
            size -= len(piece)
            yield piece
