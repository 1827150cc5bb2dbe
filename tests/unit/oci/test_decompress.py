"""Compressed blobs: every library that inflates gzip gives the same result for every input."""

from __future__ import annotations

import gzip
import io
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard

from bootc.oci import decompress as module
from bootc.oci.blob import LayerError
from bootc.oci.decompress import decompress
from bootc.oci.inflate import Inflater, fastest, installed
from support import require

INFLATERS = {inflater.name: inflater for inflater in installed()}
TEXT = b"".join(b"line %d of a text that compresses\n" % number for number in range(20_000))
NOISE = random.Random(1).randbytes(300_000)


@pytest.fixture(params=["isal", "zlib_ng", "zlib"])
def inflater(request: pytest.FixtureRequest) -> Inflater:
    found = INFLATERS.get(request.param)
    if found is None and request.param == "isal":
        require.lacking("isal is not installed (the extra `dev` has it)")
    if found is None:
        pytest.skip(f"{request.param} is not installed")
    return found


def test_the_fastest_is_used() -> None:
    assert fastest().name == next(iter(INFLATERS))
    assert "zlib" in INFLATERS


class Pieces:
    """A blob that comes in pieces of at most so many bytes."""

    def __init__(self, data: bytes, largest: int) -> None:
        self._stream = io.BytesIO(data)
        self._largest = largest

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._largest))


def result(blob: bytes, inflater: Inflater, largest: int = 1 << 30) -> tuple[bytes, str]:
    """Return what comes out, and the error after it."""
    chunks = []
    try:
        for chunk in decompress(Pieces(blob, largest), inflater):
            assert len(chunk) <= 1 << 18
            chunks.append(chunk)
    except LayerError as exc:
        return b"".join(chunks), exc.message
    return b"".join(chunks), ""


def by_zlib(blob: bytes) -> bytes | None:
    """Return what zlib makes of members, headers included; None if something is wrong."""
    out = b""
    while blob:
        member = zlib.decompressobj(31)
        try:
            out += member.decompress(blob)
        except zlib.error:
            return None
        if not member.eof:
            return None
        blob = member.unused_data
    return out


def packed(data: bytes, level: int = 6) -> bytes:
    return gzip.compress(data, level, mtime=0)


def with_fields(data: bytes) -> bytes:
    """A member whose header has all optional fields: extra, name, comment, checksum."""
    header = b"\x1f\x8b\x08\x1e" + bytes(4) + b"\x02\xff"
    header += b"\x05\x00extra" + b"name\0" + b"comment\0"
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    return header + packed(data)[10:]


GOOD: dict[str, tuple[bytes, bytes]] = {
    "text": (packed(TEXT), TEXT),
    "noise": (packed(NOISE), NOISE),
    "stored": (packed(NOISE, 0), NOISE),
    "nothing": (packed(b""), b""),
    "fields": (with_fields(TEXT), TEXT),
    "members": (
        packed(TEXT) + packed(b"") + with_fields(NOISE) + packed(b"x"),
        TEXT + NOISE + b"x",
    ),
    "many members": (packed(b"abc") * 1000, b"abc" * 1000),
    "empty members": (packed(b"") * 1000 + packed(b"end"), b"end"),
    "pigz": (packed(NOISE[:1000]) + packed(NOISE[1000:]), NOISE),
    "zeros": (packed(bytes(20 << 20)), bytes(20 << 20)),
}


@pytest.mark.parametrize("largest", [1, 7, 1 << 18])
@pytest.mark.parametrize("name", GOOD)
def test_good(name: str, largest: int, inflater: Inflater) -> None:
    blob, wanted = GOOD[name]
    if largest == 1 and len(blob) > 200_000:
        return
    assert result(blob, inflater, largest) == (wanted, "")


def flipped(blob: bytes, at: int) -> bytes:
    changed = bytearray(blob)
    changed[at] ^= 0x55
    return bytes(changed)


SMALL = packed(TEXT[:5000])
BAD: dict[str, tuple[bytes, str]] = {
    "wrong checksum": (flipped(SMALL, -8), "corrupt gzip data"),
    "wrong size": (flipped(SMALL, -1), "corrupt gzip data"),
    "no trailer": (SMALL[:-8], "truncated gzip data"),
    "half a checksum": (SMALL[:-6], "truncated gzip data"),
    "half a size": (SMALL[:-1], "truncated gzip data"),
    "half the data": (SMALL[: len(SMALL) // 2], "truncated gzip data"),
    "a header only": (SMALL[:10], "truncated gzip data"),
    "half a header": (SMALL[:5], "truncated gzip data"),
    "a magic only": (SMALL[:2], "truncated gzip data"),
    "half a name": (with_fields(b"x")[:20], "truncated gzip data"),
    "half a second member": (SMALL + SMALL[:15], "truncated gzip data"),
    "garbage after it": (SMALL + b"garbage that is no member", "corrupt gzip data"),
    "a byte after it": (SMALL + b"x", "corrupt gzip data"),
    "half a magic after it": (SMALL + b"\x1f", "truncated gzip data"),
    "zeros after it": (SMALL + bytes(512), "corrupt gzip data"),
    "zstd after it": (SMALL + zstandard.ZstdCompressor().compress(b"x"), "corrupt gzip data"),
    "unknown method": (flipped(SMALL, 2), "corrupt gzip data"),
    "reserved flags": (SMALL[:3] + b"\xe0" + SMALL[4:], "corrupt gzip data"),
    "bad block": (SMALL[:10] + b"\xff" * 100, "corrupt gzip data"),
    "a far match": (SMALL[:10] + b"\x4b\x04\x12\x00" + SMALL[14:], "corrupt gzip data"),
}


@pytest.mark.parametrize("largest", [1, 1 << 18])
@pytest.mark.parametrize("name", BAD)
def test_bad(name: str, largest: int, inflater: Inflater) -> None:
    blob, message = BAD[name]
    assert result(blob, inflater, largest)[1] == message


def test_any_damage_is_found_alike(inflater: Inflater) -> None:
    """Some damage may pass (a name, a time), but then nobody minds."""
    dice = random.Random(7)
    for _ in range(400):
        blob = bytearray(with_fields(TEXT[: dice.randrange(1, 3000)]) * 2)
        for _ in range(dice.randrange(1, 4)):
            blob[dice.randrange(len(blob))] ^= 1 << dice.randrange(8)
        del blob[dice.randrange(len(blob) // 2, len(blob) + 1) :]
        data = bytes(blob)
        if not data.startswith(b"\x1f\x8b"):
            continue
        out, error = result(data, inflater)
        assert (None if error else out) == by_zlib(data), data.hex()


def test_zstd_of_many_frames_with_skippable_ones() -> None:
    pack = zstandard.ZstdCompressor().compress
    skipped = b"\x50\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"skipped"
    blob = b"".join(pack(b"%d," % number) + skipped * (number % 2) for number in range(3000))
    assert b"".join(decompress(io.BytesIO(skipped + blob))) == b"".join(
        b"%d," % number for number in range(3000)
    )


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress, bytes])
def test_a_layer_is_not_larger_than_the_limit(
    pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_LAYER_BYTES", 1 << 20)
    assert len(b"".join(decompress(io.BytesIO(pack(bytes(1 << 20)))))) == 1 << 20
    with pytest.raises(
        LayerError, match="more than 1048576 bytes when it is decompressed"
    ) as caught:
        for _ in decompress(io.BytesIO(pack(bytes((1 << 20) + 1)))):
            pass
    assert caught.value.hint == "no layer may be larger: split it"


@pytest.mark.parametrize("nested", [1, 50])
def test_bombs_need_no_memory(nested: int, inflater: Inflater) -> None:
    blob = packed(bytes(30 << 20)) * nested
    if nested > 1:
        blob = packed(bytes(1 << 20)) * nested
    tracemalloc.start()
    try:
        assert sum(map(len, decompress(io.BytesIO(blob), inflater))) >= 30 << 20
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
