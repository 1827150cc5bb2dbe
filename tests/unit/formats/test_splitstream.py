from __future__ import annotations

import hashlib
import json
import struct
import tarfile
import tracemalloc

import pytest
import zstandard

from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.splitstream import (
    OCI_CONFIG,
    OCI_LAYER,
    SplitstreamError,
    StreamReader,
    StreamWriter,
)
from bootc.formats.verity import verity_digest
from support.images import file, layer

SHA256 = Algorithm.SHA256


def digest(number: int) -> Digest:
    return Digest(SHA256, bytes([number]) * 32)


def zero_file_layer(name: str, size: int) -> tuple[bytes, bytes]:
    """Return the tar archive and the splitstream of one file of zeros, as the pins have it."""
    content = bytes(size)
    # Only two zero blocks follow: no padding to a whole record.
    tar = layer(file(name, content, mode=0o700, mtime=0), format=tarfile.USTAR_FORMAT)
    padded = size + -size % 512
    tar = tar[: 512 + padded + 1024]
    # The checksum is spelled with seven digits.
    tar = tar[:148] + b"%07o\0" % int(tar[148:154], 8) + tar[156:]
    writer = StreamWriter(SHA256, OCI_LAYER)
    writer.inline(tar[:512])
    writer.external(verity_digest(content, SHA256), size)
    writer.inline(tar[512 + size :])
    return tar, writer.finish()


PINS = {
    ("alpha", 1000): (
        "757d6903198804b6ed96421a93a9973f5facc0e445a2a6c61cb0129eb67026e2",
        "61c07629b8a41273f190744a8545c132e6b784dcb2235bb31ade307a83e092ff",
    ),
    ("beta", 2000): (
        "77dd145166ef191089dabd4d2c52d32143850a3c81a074fedf48dca360e2dcb9",
        "ce472620ab69da46e385b0936865ef22f940e6bf55a083d3be37b1003795e221",
    ),
    ("gamma", 3000): (
        "9b57f0e91c403b650e9391fd5e4154cac5dc1469acc0f3312e6149aa34f160ef",
        "99ce11df4bb808a1e80ce69425dae527b64aa7a270bf99c4a6e24d66be270f3f",
    ),
}


@pytest.mark.parametrize("what", PINS)
def test_pinned_layer_streams(what: tuple[str, int]) -> None:
    tar, stream = zero_file_layer(*what)
    diff_id, stream_id = PINS[what]
    assert hashlib.sha256(tar).hexdigest() == diff_id
    assert verity_digest(stream, SHA256).hex == stream_id


def test_pinned_config_stream() -> None:
    diff_ids = [f"sha256:{diff_id}" for diff_id, _ in PINS.values()]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        },
        separators=(",", ":"),
    ).encode()
    writer = StreamWriter(SHA256, OCI_CONFIG)
    for diff_id, (_, stream_id) in zip(diff_ids, PINS.values(), strict=True):
        writer.refer(diff_id, Digest.from_hex(stream_id))
    writer.external(verity_digest(config, SHA256), len(config))
    assert (
        verity_digest(writer.finish(), SHA256).hex
        == "4839518dea22749f8ff233e7f7baec65f23dd5336462f46ad6884769af84bf95"
    )


def test_worked_example() -> None:
    _, stream = zero_file_layer("alpha", 1000)
    assert len(stream) == 237
    words = [0x70, 0x70, 0x70, 0x90, 0x99, 0xED, 0x90, 0x99]
    assert stream[:0x70] == (
        b"SplitStream\0\0\0\x01\x0c"
        + struct.pack("<10Q", 0x20, 0x70, *words)
        + b"ocilayer"
        + struct.pack("<Q", 2560)
    )
    assert stream[0x70:0x90].hex() == (
        "f6fa43bbc0a7908e2ef77438244159e9dec289dfc4c49d229237f9797a6a9b79"
    )
    assert stream[0x90:0x99] == bytes.fromhex("28b52ffd2000010000")
    assert stream[0x99:0xA1] == bytes.fromhex("28b52ffd00585d02")


def test_read_back() -> None:
    writer = StreamWriter(SHA256, b"whatever")
    writer.refer("zebra", digest(1))
    writer.refer("ant", digest(2))
    writer.refer("same", digest(1))
    writer.refer("ant", digest(3))
    writer.inline(b"abc")
    writer.inline(b"")
    writer.inline(memoryview(b"def"))
    writer.external(digest(9), 1000)
    writer.external(digest(8), 2000)
    writer.external(digest(9), 1000)
    writer.inline(b"end")
    data = writer.finish()

    reader = StreamReader(data)
    assert reader.algorithm is SHA256
    assert reader.content_type == b"whatever"
    assert reader.size_bytes == 4009
    assert reader.stream_refs == (digest(1), digest(2), digest(3))
    assert reader.object_refs == (digest(9), digest(8))
    assert reader.named_refs == {"ant": digest(3), "same": digest(1), "zebra": digest(1)}
    assert list(reader.chunks(largest=4)) == [
        b"abcd",
        b"ef",
        digest(9),
        digest(8),
        digest(9),
        b"end",
    ]

    reader = StreamReader(data)
    assert reader.read(2) == b"ab"
    assert next(reader.chunks()) == b"cdef"
    assert [reader.external(), reader.external(), reader.external()] == [
        digest(9),
        digest(8),
        digest(9),
    ]
    assert reader.read(100) == b"end"
    assert reader.read(1) == b""


def test_old_header_is_read() -> None:
    _, stream = zero_file_layer("alpha", 1000)
    old = struct.pack("<QQH", 0x20, 0x70, 0) + b"SplitStream" + bytes([0, 1, 12])
    assert len(old) == 32
    reader = StreamReader(old + stream[32:])
    assert reader.size_bytes == 2560
    assert list(reader.chunks()) == list(StreamReader(stream).chunks())


def test_longer_info_block_is_allowed() -> None:
    # A future writer may append fields; everything behind moves.
    _, stream = zero_file_layer("alpha", 1000)
    ranges = struct.unpack_from("<8Q", stream, 32)
    moved = struct.pack("<8Q", *(at + 16 for at in ranges))
    longer = (
        stream[:16] + struct.pack("<QQ", 32, 128) + moved + stream[96:112] + bytes(16)
    ) + stream[112:]
    assert list(StreamReader(longer).chunks()) == list(StreamReader(stream).chunks())


def test_expectations() -> None:
    reader = StreamReader(StreamWriter(SHA256, OCI_LAYER).finish())
    reader.expect(OCI_LAYER, SHA256)
    with pytest.raises(SplitstreamError, match="b'ocilayer' instead of b'ociconfg'"):
        reader.expect(OCI_CONFIG, SHA256)
    with pytest.raises(SplitstreamError, match="digests are sha256"):
        reader.expect(OCI_LAYER, Algorithm.SHA512)


def test_wrong_turns() -> None:
    _, stream = zero_file_layer("alpha", 1000)
    reader = StreamReader(stream)
    with pytest.raises(SplitstreamError, match="no object where one belongs"):
        reader.external()
    reader = StreamReader(stream)
    with pytest.raises(SplitstreamError, match="an object where inline bytes belong"):
        reader.read(513)


def build(body: bytes, *, size: int = 100, refs: bytes = b"", streams: bytes = b"") -> bytes:
    """Make a stream with any body and references, well framed."""
    compress = zstandard.ZstdCompressor().compress
    named, zbody = compress(refs), compress(body)
    a = 112 + len(streams)
    b = a + len(named)
    ranges = (112, a, a, a, b, b + len(zbody), a, b)
    return b"".join(
        (
            b"SplitStream\0\0\0\x01\x0c",
            struct.pack("<10Q", 32, 112, *ranges),
            b"ocilayer",
            struct.pack("<Q", size),
            streams,
            named,
            zbody,
        )
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "truncated header at offset 0"),
        (b"SplitStream", "truncated header at offset 11"),
        (bytes(200), "no magic"),
        (b"SplitStream\1\0\0\1\x0c" + bytes(100), "unknown version"),
        (b"SplitStream\0\0\0\3\x0c" + bytes(100), "unknown version, algorithm"),
        (b"SplitStream\0\0\0\1\x0d" + bytes(100), "block size"),
        (b"SplitStream\0\0\0\1\x0c" + struct.pack("<QQ", 32, 500), "range 32..500 outside"),
        (b"SplitStream\0\0\0\1\x0c" + struct.pack("<QQ", 32, 32), "info block too short"),
        (build(b"")[:-1], "range 121..130 outside the stream at offset 32"),
        (build(b"", streams=bytes(31)), "part of a digest at offset 112"),
        (build(b"", refs=b"0:x"), "unterminated"),
        (build(b"", refs=b"0:x\0"), "named reference to no stream"),
        (build(b"", refs=b"x\0"), "bad named reference"),
        (build(b"", refs=b"-1:x\0"), "bad named reference"),
    ],
)
def test_bad_headers(data: bytes, message: str) -> None:
    with pytest.raises(SplitstreamError, match=message):
        StreamReader(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (build(b"abc"), "truncated body"),
        (build(struct.pack("<q", -5) + b"abc"), "truncated body"),
        (build(struct.pack("<q", -101) + b"a" * 101), "larger than the stream"),
        (build(struct.pack("<q", -(1 << 63))), "larger than the stream"),
        (build(struct.pack("<q", 0)), "object 0 of 0"),
    ],
)
def test_bad_bodies(data: bytes, message: str) -> None:
    with pytest.raises(SplitstreamError, match=message):
        list(StreamReader(data).chunks())


def test_corrupt_compression() -> None:
    _, stream = zero_file_layer("alpha", 1000)
    broken = stream[:0x99] + b"\xff" * 84
    with pytest.raises(SplitstreamError, match="corrupt compressed data at offset 153"):
        list(StreamReader(broken).chunks())
    # The frame of the body says it goes on, but the range ends.
    short = bytearray(stream[:-4])
    struct.pack_into("<Q", short, 32 + 5 * 8, len(short))
    with pytest.raises(SplitstreamError, match="ends early or late"):
        list(StreamReader(bytes(short)).chunks())
    long = bytearray(stream + b"more")
    struct.pack_into("<Q", long, 32 + 5 * 8, len(long))
    with pytest.raises(SplitstreamError, match="ends early or late"):
        list(StreamReader(bytes(long)).chunks())


def test_memory_stays_small() -> None:
    size = 256 << 20
    writer = StreamWriter(SHA256, OCI_LAYER)
    tracemalloc.start()
    try:
        for _ in range(size >> 20):
            writer.inline(bytes(1 << 20))
        data = writer.finish()
        assert sum(len(chunk) for chunk in StreamReader(data).chunks()) == size  # type: ignore[arg-type]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5 * splitstream._MERGE_BYTES
