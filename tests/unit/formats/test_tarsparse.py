"""Sparse members: Python's reader is the reference, and no wrong map is taken."""

from __future__ import annotations

import io
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.formats.tar import Entry, EntryKind, HeaderReader
from bootc.formats.tarsparse import SparseMap, expanded
from bootc.formats.tarvalues import TarError
from support.sparse import FORMATS, Segment, content_of, member

END = bytes(1024)
AFTER = tarfile.TarInfo("after").tobuf(tarfile.USTAR_FORMAT)


def read(data: bytes) -> list[tuple[Entry, bytes]]:
    """Return the entries with their contents, and check that no byte is lost."""
    stream = io.BytesIO(data)
    headers = HeaderReader(stream.read)
    found, again = [], b""
    for entry in headers:
        body = stream.read(entry.size_bytes)
        again += entry.raw + body + stream.read(entry.padding_bytes)
        if entry.sparse is not None:
            pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
            body = b"".join(expanded(entry.sparse, len(body), pieces, entry.body_offset))
        found.append((entry, body))
    assert again + headers.trailer == data
    return found


@st.composite
def sparse_files(draw: st.DrawFn) -> tuple[int, list[Segment]]:
    at, segments = 0, []
    for hole, part in draw(
        st.lists(st.tuples(st.integers(0, 3000), st.binary(max_size=700)), max_size=60)
    ):
        segments.append((at + hole, part))
        at += hole + len(part)
    return at + draw(st.integers(0, 3000)), segments


@settings(deadline=None)
@given(sparse_files(), st.sampled_from(FORMATS))
def test_agrees_with_tarfile(made: tuple[int, list[Segment]], form: str) -> None:
    size, segments = made
    data = member("d/holes", size, segments, form) + AFTER + END
    wanted = content_of(size, segments)
    (holes, content), (after, _) = read(data)
    assert (holes.kind, holes.path, content) == (EntryKind.SPARSE, b"d/holes", wanted)
    assert holes.stored_mode == 0o644
    assert after.path == b"after"
    if any(not part for _, part in segments):
        # Python takes an empty part for the end of the map.
        return
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        first = archive.getmembers()[0]
        file = archive.extractfile(first)
        assert file is not None
        assert (first.name, file.read()) == ("d/holes", wanted)


#: Each has the size of the file, and parts that are wrong for it.
WRONG_MAPS: dict[str, tuple[int, list[Segment]]] = {
    "beyond the end": (1000, [(0, b"a" * 10), (995, b"b" * 10)]),
    "overlapping": (1000, [(0, b"a" * 10), (5, b"b" * 10)]),
    "descending": (1000, [(500, b"a" * 10), (0, b"b" * 10)]),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("wrong", WRONG_MAPS)
def test_wrong_maps(wrong: str, form: str) -> None:
    size, segments = WRONG_MAPS[wrong]
    with pytest.raises(TarError, match="a sparse map whose parts do not fit the file"):
        read(member("holes", size, segments, form) + END)


@pytest.mark.parametrize("form", FORMATS)
def test_maps_that_do_not_fit_the_data(form: str) -> None:
    good = member("holes", 1000, [(100, b"a" * 77)], form)
    for old, new in ((b"77", b"76"), (b"00000000115", b"00000000114")):
        at = good.find(old, 0 if form != "gnu" else 386)
        if at < 0:
            continue
        changed = bytearray(good)
        changed[at : at + len(old)] = new
        if form == "gnu":
            changed[148:156] = b" " * 8
            changed[148:156] = b"%06o\0 " % sum(changed[:512])
        with pytest.raises(TarError, match="a sparse map that does not fit the data"):
            read(bytes(changed) + END)
        return
    pytest.fail("the number is not in the archive")


def pax(*records: tuple[str, str]) -> bytes:
    text = b""
    for key, value in records:
        rest = f" {key}={value}\n".encode()
        length = len(rest) + 2 if len(rest) + 2 < 100 else len(rest) + 3
        text += b"%d" % length + rest
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, len(text)
    file = tarfile.TarInfo("holes")
    padded = text + bytes(-len(text) % 512)
    return info.tobuf(tarfile.USTAR_FORMAT) + padded + file.tobuf(tarfile.USTAR_FORMAT)


S = "GNU.sparse."


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([(S + "map", "0,0")], "pax real size of a sparse file is no number"),
        ([(S + "size", "-1"), (S + "map", "0,0")], "real size of a sparse file is no number"),
        ([(S + "size", "9" * 19), (S + "map", "0,0")], "real size of a sparse file is no number"),
        ([(S + "size", "5"), (S + "map", "0")], "wrong number of numbers"),
        ([(S + "size", "5"), (S + "map", "0,x")], "pax sparse map is no number"),
        ([(S + "size", "5"), (S + "offset", "0")], "odd number of numbers"),
        ([(S + "size", "5"), (S + "major", "2"), (S + "minor", "0")], "unknown version"),
        ([(S + "size", "5"), (S + "major", "1")], "unknown version"),
        ([(S + "realsize", "5"), (S + "major", "1"), (S + "minor", "0")], "truncated sparse map"),
    ],
)
def test_wrong_records(records: list[tuple[str, str]], message: str) -> None:
    with pytest.raises(TarError, match=message):
        read(pax(*records) + END)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"x\n", "pax sparse map is no number"),
        (b"100001\n", "pax sparse map is no number in range"),
        (b"1\n0\n", "truncated sparse map"),
        (b"-1\n", "pax sparse map is no number"),
        (b"1" * 3000, "pax sparse map is no number in range"),
        (b"1\n5\n600\n", "parts do not fit"),
        (b"1\n5\n60\n", "does not fit the data"),
    ],
)
def test_wrong_maps_in_front_of_the_data(text: bytes, message: str) -> None:
    body = text + bytes(-len(text) % 512)
    with pytest.raises(TarError, match=message):
        b"".join(expanded(SparseMap(100, None), len(body), [body], 0))


def test_holes_need_no_memory() -> None:
    sparse = SparseMap(1 << 28, ((1 << 27, 5),))
    tracemalloc.start()
    try:
        assert sum(map(len, expanded(sparse, 5, [b"12345"], 0))) == 1 << 28
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
