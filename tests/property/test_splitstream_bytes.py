"""A layer split into a stream and objects can be put together again, bit by bit."""

from __future__ import annotations

import contextlib
import io

from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.formats.digest import Algorithm, Digest, OciDigest
from bootc.formats.splitstream import SplitstreamError, StreamReader, StreamWriter
from bootc.formats.verity import verity_digest
from bootc.oci.unpack import split_layer
from support.images import file, layer
from support.memory import Memory

SHA256 = Algorithm.SHA256


contents = st.one_of(st.binary(max_size=66), st.binary(min_size=500, max_size=1100))


@settings(deadline=None)
@given(st.lists(contents, max_size=6), st.binary(max_size=600))
def test_layers_come_back(files: list[bytes], trailing: bytes) -> None:
    data = layer(*(file(f"f{n}", content) for n, content in enumerate(files))) + trailing
    memory = Memory()
    stream = StreamReader(split_layer(io.BytesIO(data), OciDigest.of(data), memory))
    assert stream.size_bytes == len(data)
    pieces = (
        piece if isinstance(piece, bytes) else memory.objects[piece] for piece in stream.chunks()
    )
    assert b"".join(pieces) == data
    assert set(memory.objects.values()) == {content for content in files if len(content) > 64}


digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(SHA256, raw))


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.binary(min_size=1, max_size=200), digests), max_size=20),
    st.dictionaries(st.text(st.characters(exclude_characters="\0", codec="utf-8")), digests),
)
def test_streams_come_back(items: list[bytes | Digest], refs: dict[str, Digest]) -> None:
    writer = StreamWriter(SHA256, b"whatever")
    for name, digest in refs.items():
        writer.refer(name, digest)
    merged: list[bytes | Digest] = []
    for item in items:
        if isinstance(item, Digest):
            writer.external(item, 1)
            merged.append(item)
            continue
        writer.inline(item)
        if merged and isinstance(merged[-1], bytes):
            merged[-1] += item
        else:
            merged.append(item)
    reader = StreamReader(writer.finish())
    assert reader.named_refs == refs
    assert list(reader.chunks()) == merged


@settings(deadline=None)
@given(st.binary(max_size=400), st.integers(0, 10_000), st.binary(min_size=1, max_size=16))
def test_damaged_streams(content: bytes, at: int, damage: bytes) -> None:
    writer = StreamWriter(SHA256, b"whatever")
    writer.refer("name", verity_digest(content, SHA256))
    writer.inline(content)
    writer.external(verity_digest(content, SHA256), len(content))
    data = writer.finish()
    at %= len(data)
    for broken in (data[:at] + damage + data[at + len(damage) :], data[:at], damage + data):
        with contextlib.suppress(SplitstreamError):
            sum(len(chunk) for chunk in StreamReader(broken).chunks() if isinstance(chunk, bytes))
