"""Whatever lies in a repository, reading it takes little memory, and says which file is too large.

Writers apply the limits of readers: what was stored can be read.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from bootc.errors import Error, one_line
from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.splitstream import (
    MAX_NAMED_REFS,
    SplitstreamError,
    StreamReader,
    StreamTooLarge,
    StreamWriter,
)
from bootc.formats.verity import verity_digest
from bootc.repository import gc, images, refs
from bootc.repository.content import read_referring
from bootc.repository.fsck import check
from bootc.repository.gc import UnreadableRoot, collect
from bootc.repository.repository import Repository

SHA512 = Algorithm.SHA512
MEBIBYTE = 1 << 20


@contextlib.contextmanager
def little_memory(limit: int = 8 * MEBIBYTE) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


def absent(seed: int = 0) -> Digest:
    return verity_digest(b"absent %d" % seed, SHA512)


def plant(repository: Repository, size: int, name: str = "oci-manifest-sha256:1") -> str:
    """Put a file of this size in the place of a stream, and keep the stream."""
    path = Path(repository.dir.path, "objects", absent().object_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, size)
    with path.open("r+b") as file:
        file.write(splitstream.MAGIC)
    streams = Path(repository.dir.path, "streams")
    streams.mkdir(exist_ok=True)
    (streams / name).symlink_to(f"../objects/{absent().object_path}")
    repository.streams.set_ref("oci/tag", name)
    return name


@pytest.mark.parametrize("size", [3 << 30, 1 << 40])
def test_a_file_too_large_for_a_stream(insecure: Repository, size: int) -> None:
    name = plant(insecure, size)
    with little_memory():
        with pytest.raises(OSError, match=f"larger than {splitstream.MAX_STREAM_BYTES} bytes"):
            insecure.streams.read(name)
        with pytest.raises(UnreadableRoot) as caught:
            collect(insecure)
        findings = check(insecure, metadata_only=True).findings
    assert f"streams/{name} is needed and cannot be read" in one_line(caught.value)
    assert f"larger than {splitstream.MAX_STREAM_BYTES} bytes" in one_line(caught.value)
    assert [(f.kind.value, f.path) for f in findings] == [("stream-open-failed", f"streams/{name}")]


def test_a_large_file_is_no_stream_and_costs_nothing(insecure: Repository) -> None:
    data = bytes(40 * MEBIBYTE)
    digest = insecure.objects.put(data)
    insecure.objects.flush()
    del data
    with little_memory():
        assert read_referring(insecure.objects, digest) is None


def test_a_damaged_stream_is_not_taken_for_a_file(insecure: Repository) -> None:
    # It names what is needed: a collection must not go on without it.
    stream = StreamWriter(SHA512, splitstream.OCI_CONFIG)
    config = insecure.streams.write("oci-config-sha256:1", stream.finish())
    above = StreamWriter(SHA512, splitstream.OCI_MANIFEST)
    above.refer("config:sha256:1", config)
    insecure.streams.write("oci-manifest-sha256:1", above.finish())
    insecure.streams.set_ref("oci/tag", "oci-manifest-sha256:1")
    insecure.dir.unlink("streams/oci-config-sha256:1")
    path = Path(insecure.dir.path, "objects", config.object_path)
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(UnreadableRoot, match="is damaged"):
        collect(insecure)


def crafted(names: bytes, references: int = 1) -> bytes:
    """Return a stream with any text of named references."""
    digests = b"".join(absent(number).raw for number in range(references))
    text, body = (zstandard.ZstdCompressor().compress(data) for data in (names, b""))
    a = 112 + len(digests)
    b = a + len(text)
    c = b + len(body)
    head = b"SplitStream\0\0\0\2\x0c" + struct.pack("<10Q", 32, 112, 112, a, a, a, b, c, a, b)
    return b"".join((head, splitstream.OCI_MANIFEST, struct.pack("<Q", 0), digests, text, body))


def test_a_million_named_references(insecure: Repository) -> None:
    some = b"".join(b"0:%05d\0" % number for number in range(1000))
    assert len(StreamReader(crafted(some)).named_refs) == 1000
    short = b"0:\0" * (MAX_NAMED_REFS + 1)
    for names in (short, b"".join(b"0:%07d\0" % number for number in range(1_000_000))):
        data = crafted(names)
        with (
            little_memory(16 * MEBIBYTE),
            pytest.raises(SplitstreamError, match="too many named references"),
        ):
            StreamReader(data)
    insecure.streams.write("oci-manifest-sha256:1", data)
    insecure.streams.set_ref("oci/tag", "oci-manifest-sha256:1")
    with pytest.raises(UnreadableRoot, match=r"streams/oci-manifest-sha256:1 .*too many named"):
        collect(insecure)


def test_too_many_streams_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splitstream, "MAX_NAMED_REFS", 3)
    with pytest.raises(SplitstreamError, match="too many references to streams"):
        StreamReader(crafted(b"", references=4))
    writer = StreamWriter(SHA512, b"whatever")
    for number in range(3):
        writer.refer(f"name {number}", absent(number))
    writer.refer("again", absent(2))
    with pytest.raises(StreamTooLarge, match="no room for more than 3 references"):
        writer.refer("one more", absent(4))
    with pytest.raises(StreamTooLarge, match="4 references are too many"):
        writer.finish()


def test_a_writer_stops_where_a_reader_would(
    insecure: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splitstream, "MAX_STREAM_BYTES", 300_000)
    monkeypatch.setattr(splitstream, "_MERGE_BYTES", 1000)
    writer = StreamWriter(SHA512, splitstream.OCI_LAYER)
    write = writer.inline
    pieces = map(os.urandom, [1000] * 1000)
    with pytest.raises(StreamTooLarge, match="more than 300000 bytes"):
        collections.deque(map(write, pieces), 0)
    # The compressor holds back at most a block.
    assert len(list(pieces)) > 500
    writer = StreamWriter(SHA512, splitstream.OCI_LAYER)
    files = [(absent(number), 100) for number in range(300_000 // 64 + 1)]
    with pytest.raises(StreamTooLarge):
        collections.deque(itertools.starmap(writer.external, files), 0)
    with pytest.raises(StreamTooLarge):
        insecure.streams.write("stream", bytes(300_001))
    with pytest.raises(SplitstreamError, match="more than 300000 bytes"):
        StreamReader(bytes(300_001))
    writer = StreamWriter(SHA512, splitstream.OCI_LAYER)
    writer.inline(os.urandom(299_000))
    assert StreamReader(writer.finish()).size_bytes == 299_000


def test_more_references_than_anybody_has(
    insecure: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refs, "MAX_REFERENCES", 12)  # with their directories
    directory = Path(insecure.dir.path, "streams/refs")
    for number in range(11):
        (directory / f"{number % 2}").mkdir(parents=True, exist_ok=True)
        (directory / f"{number % 2}" / str(number)).symlink_to("../../stream")
    reads: tuple[Callable[[Repository], object], ...] = (
        lambda repository: repository.streams.refs(),
        collect,
    )
    for read in reads:
        with pytest.raises(OSError, match="there are more than 12 references") as caught:
            read(insecure)
        assert "/streams/refs" in str(caught.value.filename)
    assert len(insecure.streams.refs("0")) == 6
    (directory / "0" / "0").unlink()
    assert len(insecure.streams.refs()) == 10


def test_more_entries_than_anybody_has(
    insecure: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_ENTRIES", 3)
    monkeypatch.setattr(gc, "MAX_ENTRIES", 3)
    directory = Path(insecure.dir.path, "images")
    directory.mkdir()
    for number in range(4):
        (directory / str(number)).symlink_to("nowhere")
    for read in (insecure.images.names, lambda: collect(insecure)):
        with pytest.raises(OSError, match="holds more than 3 entries"):
            read()


def test_errors_are_one_line_with_the_file(insecure: Repository) -> None:
    name = plant(insecure, 3 << 30)
    with pytest.raises((Error, OSError)) as caught:
        insecure.streams.read(name)
    line = one_line(caught.value)
    assert name in line
    assert absent().object_path in line
