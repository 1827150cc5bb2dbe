"""Any archive Python writes is read alike, and no bytes make the reader fail otherwise."""

from __future__ import annotations

import contextlib
import io
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.formats.tar import HeaderReader
from bootc.formats.tarvalues import TarError
from support.images import Member, layer, member

names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]),
    min_size=1,
    max_size=120,
).filter(lambda name: name not in (".", "..") and "\n" not in name)


@st.composite
def members(draw: st.DrawFn) -> Member:
    name = "/".join(draw(st.lists(names, min_size=1, max_size=4)))
    common = {
        "mode": draw(st.integers(0, 0o7777)),
        "uid": draw(st.integers(0, 2**32 - 1)),
        "gid": draw(st.integers(0, 2**32 - 1)),
        "mtime": draw(st.integers(-(2**33), 2**33)),
    }
    kind = draw(st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE]))
    if kind == tarfile.REGTYPE:
        return member(name, kind, draw(st.binary(max_size=1500)), **common)
    if kind == tarfile.SYMTYPE:
        return member(name, kind, linkname=draw(names), **common)
    return member(name, kind, **common)


archives = st.builds(
    lambda items, format: layer(*items, format=format),
    st.lists(members(), max_size=5),
    st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)


@settings(deadline=None)
@given(archives)
def test_agrees_with_tarfile_and_keeps_every_byte(data: bytes) -> None:
    stream = io.BytesIO(data)
    headers = HeaderReader(stream.read)
    ours = []
    again = b""
    for entry in headers:
        body = stream.read(entry.size_bytes)
        again += entry.raw + body + stream.read(entry.padding_bytes)
        ours.append(
            (
                *(entry.path.rstrip(b"/"), entry.mode, entry.uid, entry.gid),
                *(entry.mtime_s, entry.link_target, body),
            )
        )
    assert again + headers.trailer + stream.read() == data
    with tarfile.open(fileobj=io.BytesIO(data), encoding="utf-8") as archive:
        theirs = [
            (
                *(m.name.rstrip("/").encode(), m.mode, m.uid, m.gid),
                *(int(m.mtime), m.linkname.encode()),
                archive.extractfile(m).read() if m.isreg() else b"",  # type: ignore[union-attr]
            )
            for m in archive
        ]
    assert ours == theirs


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes(data: bytes) -> None:
    consume(data)


@settings(deadline=None)
@given(archives, st.integers(0, 10_000), st.binary(min_size=1, max_size=20))
def test_damaged_archives(data: bytes, at: int, damage: bytes) -> None:
    at %= len(data)
    consume(data[:at] + damage + data[at + len(damage) :])
    consume(data[:at])


def consume(data: bytes) -> None:
    stream = io.BytesIO(data)
    with contextlib.suppress(TarError):
        for entry in HeaderReader(stream.read):
            stream.seek(entry.size_bytes + entry.padding_bytes, io.SEEK_CUR)
