from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import pytest
import zstandard

from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, Digest, DigestMismatch, OciDigest
from bootc.formats.splitstream import SplitstreamError, StreamReader, StreamWriter
from bootc.formats.tar import EntryKind
from bootc.formats.tarvalues import TarError
from bootc.formats.tree import External, Inline
from bootc.formats.verity import verity_digest
from bootc.fs.content_sink import ContentWriter
from bootc.oci.blob import LayerError
from bootc.oci.decompress import WrongCompression, decompress
from bootc.oci.unpack import bodies_of, entries, split_layer
from bootc.repository.sink import DigestOnly
from support import sparse
from support.images import directory, file, layer

SHA256 = Algorithm.SHA256
DATA = layer(directory("d"), file("d/small", b"s" * 64), file("d/large", b"l" * 65))


def split(blob: bytes, data: bytes = DATA) -> StreamReader:
    return StreamReader(split_layer(io.BytesIO(blob), OciDigest.of(data), DigestOnly(SHA256)))


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


SKIPPABLE = (0x184D2A5E).to_bytes(4, "little") + (5).to_bytes(4, "little") + b"extra"


@pytest.mark.parametrize(
    "blob",
    [
        DATA,
        gzip.compress(DATA, mtime=0),
        gzip.compress(DATA[:700], mtime=0)
        + gzip.compress(b"", mtime=0)
        + gzip.compress(DATA[700:], mtime=0),
        zstd(DATA),
        zstd(DATA[:700]) + zstd(DATA[700:]),
        SKIPPABLE + zstd(DATA) + SKIPPABLE,
    ],
    ids=["plain", "gzip", "gzip-members", "zstd", "zstd-frames", "zstd-skippable"],
)
def test_compressions(blob: bytes) -> None:
    assert b"".join(decompress(io.BytesIO(blob))) == DATA
    large = verity_digest(b"l" * 65, SHA256)
    assert [(e.path, content) for e, content in entries(split(blob), SHA256)] == [
        (b"d/", Inline(b"")),
        (b"d/small", Inline(b"s" * 64)),
        (b"d/large", External(large, 65)),
    ]


class Trickle:
    """A blob that comes byte by byte, as from a slow pipe."""

    def __init__(self, data: bytes) -> None:
        self._stream = io.BytesIO(data)

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, 1))


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_slow_blobs(compress: object) -> None:
    blob = compress(DATA)  # type: ignore[operator]
    stream = split_layer(Trickle(blob), OciDigest.of(DATA), DigestOnly(SHA256))
    assert stream == split_layer(io.BytesIO(DATA), OciDigest.of(DATA), DigestOnly(SHA256))


@pytest.mark.parametrize("blob", [b"", gzip.compress(b"", mtime=0), zstd(b"")])
def test_empty_layers(blob: bytes) -> None:
    assert list(entries(split(blob, b""), SHA256)) == []


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (b"\x1f\x8b", "truncated gzip"),
        (b"\x1f\x8b" + b"x" * 50, "corrupt gzip"),
        (gzip.compress(DATA, mtime=0) + gzip.compress(DATA, mtime=0)[:15], "truncated gzip"),
        (zstd(DATA)[:4], "truncated zstd"),
        (zstd(DATA) + zstd(DATA)[:8], "truncated zstd"),
        (zstd(DATA) + b"x" * 20, "corrupt zstd"),
    ],
)
def test_damaged_compression(blob: bytes, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        split(blob)


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("layer.tar", data)
    return file.getvalue()


def bare(magic: bytes) -> Callable[[bytes], bytes]:
    return lambda data: magic + data


#: Real ones where the standard library has them.
FOREIGN: dict[str, Callable[[bytes], bytes]] = {
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zip": zipped,
    "lz4": bare(b"\x04\x22\x4d\x18"),
    "lzip": bare(b"LZIP\1"),
    "lzop": bare(b"\x89LZO\0\r\n"),
    "compress": bare(b"\x1f\x9d\x90"),
}


@pytest.mark.parametrize("trickle", [False, True])
@pytest.mark.parametrize("inner", [*FOREIGN, "gzip", "zstd"])
@pytest.mark.parametrize("outer", ["gzip", "zstd", None])
def test_layers_compressed_in_other_ways(inner: str, outer: str | None, trickle: bool) -> None:
    ours: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd}
    if outer is None and inner in ours:
        return
    data = (FOREIGN | ours)[inner](DATA)
    blob = data if outer is None else ours[outer](data)
    source = Trickle(blob) if trickle else io.BytesIO(blob)
    with pytest.raises(WrongCompression) as caught:
        split_layer(source, OciDigest.of(data), DigestOnly(SHA256))
    how = f"by {inner}" if outer is None else f"twice, by {inner} within {outer}"
    assert caught.value.message == f"it is compressed {how}, which layers cannot be"
    assert caught.value.hint == "compress it by gzip or zstd, or not at all"


def test_a_name_may_begin_like_compressed_data() -> None:
    data = layer(file("BZh91AY&SY", b"x"), file("LZIP", b"y"))
    names = [entry.path for entry, _ in entries(split(gzip.compress(data), data), SHA256)]
    assert names == [b"BZh91AY&SY", b"LZIP"]


def test_damage_that_is_not_compression() -> None:
    with pytest.raises(TarError, match="checksum is no number at offset 0"):
        split(b"x" * 1024, b"x" * 1024)


def test_a_body_that_ends_too_early_is_named() -> None:
    data = layer(file("first", b"1"), file("usr/second", b"2" * 5000))
    for size in (1024 + 512 + 100, 1024 + 512 + 4999):
        with pytest.raises(TarError, match=r"entry 'usr/second': truncated body at offset 1536"):
            split(data[:size], data[:size])


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_bombs_need_no_memory(compress: object) -> None:
    size = 120 << 20
    data = layer(file("zeros", bytes(size)))
    blob, diff_id = compress(data), OciDigest.of(data)  # type: ignore[operator]
    del data
    tracemalloc.start()
    try:
        split_layer(io.BytesIO(blob), diff_id, DigestOnly(SHA256))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 80 << 20


def test_wrong_diff_id() -> None:
    with pytest.raises(DigestMismatch, match=f"instead of {OciDigest.of(b'x')}"):
        split(DATA, b"x")


def test_full_disk() -> None:
    class Full:
        """An object store without room (an ``ObjectSink``)."""

        algorithm = SHA256

        def put(self, data: bytes) -> Digest:
            raise OSError(errno.ENOSPC, "No space left on device")

        def put_many(self, contents: Sequence[bytes]) -> list[Digest]:
            return [self.put(data) for data in contents]

        def writer(self) -> AbstractContextManager[ContentWriter]:
            @contextlib.contextmanager
            def failing() -> Iterator[ContentWriter]:
                self.put(b"")
                yield DigestOnly(SHA256).writer().__enter__()

            return failing()

    with pytest.raises(OSError, match="No space left"):
        split_layer(io.BytesIO(DATA), OciDigest.of(DATA), Full())


def test_bodies_of() -> None:
    wanted = [e for e, content in entries(split(DATA), SHA256) if e.kind is EntryKind.FILE]
    assert len(wanted) > 1
    bodies = list(bodies_of(io.BytesIO(gzip.compress(DATA, mtime=0)), wanted))
    assert [entry for entry, _ in bodies] == wanted
    for entry, body in bodies:
        assert body == DATA[entry.body_offset : entry.body_offset + entry.size_bytes]
    assert bodies[-1] == next(bodies_of(io.BytesIO(DATA), wanted[-1:]))
    with pytest.raises(TarError, match="truncated body"):
        list(bodies_of(io.BytesIO(DATA[: wanted[-1].body_offset + 10]), wanted))


def stream_of(*items: bytes | Digest, content_type: bytes = splitstream.OCI_LAYER) -> StreamReader:
    writer = StreamWriter(SHA256, content_type)
    for item in items:
        if isinstance(item, Digest):
            writer.external(item, 65)
        else:
            writer.inline(item)
    return StreamReader(writer.finish())


def test_streams_that_are_no_layers() -> None:
    digest = verity_digest(b"", SHA256)
    large = DATA.index(b"d/large")
    small = DATA.index(b"d/small")

    def consume(stream: StreamReader, algorithm: Algorithm = SHA256) -> None:
        for _ in entries(stream, algorithm):
            pass

    consume(stream_of(DATA[: large + 512], digest, DATA[large + 577 :]))
    with pytest.raises(SplitstreamError, match="content type b'ociconfg'"):
        consume(stream_of(DATA, content_type=splitstream.OCI_CONFIG))
    with pytest.raises(SplitstreamError, match="digests are sha256"):
        consume(stream_of(DATA), Algorithm.SHA512)
    # A large file inline, and a small one as an object.
    with pytest.raises(SplitstreamError, match="no object where one belongs"):
        consume(stream_of(DATA))
    with pytest.raises(SplitstreamError, match="an object where inline bytes belong"):
        consume(stream_of(DATA[: small + 512], digest))
    with pytest.raises(TarError, match="truncated body"):
        consume(stream_of(DATA[: small + 512 + 10]))
    with pytest.raises(SplitstreamError, match="an object where inline bytes belong"):
        consume(stream_of(digest))


def test_a_sparse_file_of_a_stream_without_its_content() -> None:
    data = sparse.member("usr/holes", 5000, [(0, b"x" * 100)], "1.0")
    body = data[-1024:]
    stream = stream_of(data[:-1024], verity_digest(body[:612], SHA256), body[612:])
    with pytest.raises(
        LayerError, match="without the content of the sparse file 'usr/holes'"
    ) as caught:
        list(entries(stream, SHA256))
    assert caught.value.hint == "remove what nothing needs (bootc internals cfs gc), and pull again"


def test_an_object_that_is_content_and_kept() -> None:
    """The content of a sparse file may be an object of another file, before or after it."""
    data = sparse.member("whole", 500, [(0, b"d" * 500)], "gnu")
    same = layer(file("same", b"d" * 500))
    plain = same.rstrip(b"\0") + bytes(-len(same.rstrip(b"\0")) % 512)
    digest = verity_digest(b"d" * 500, SHA256)
    for archive in (data + same, plain + data + bytes(1024)):
        found = [content for _, content in entries(split(archive, archive), SHA256)]
        assert found == [External(digest, 500)] * 2
