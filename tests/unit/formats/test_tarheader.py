"""What is written is what our reader and Python's read, and small where it can be."""

from __future__ import annotations

import doctest
import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootc.formats import tarheader
from bootc.formats.tar import BLOCK_BYTES, EntryKind, HeaderReader
from bootc.formats.tarheader import TRAILER, Member, padding, tar_header

paths = st.binary(min_size=1, max_size=300).map(
    lambda raw: b"/".join(filter(None, raw.replace(b"\0", b"x").split(b"/"))) or b"x"
)
numbers = st.sampled_from([0, 1, 0o7777777, 0o7777777 + 1, 2**32 - 1])
members = st.builds(
    Member,
    path=paths,
    kind=st.just(EntryKind.FILE),
    mode=st.integers(0, 0o7777),
    uid=numbers,
    gid=numbers,
    mtime_s=st.sampled_from([-(2**63), -(2**33), -2, -1, 0, 1, 2**33 - 1, 2**33, 2**40]),
    mtime_ns=st.sampled_from([0, 1, 999_999_999]),
    size_bytes=st.sampled_from([0, 1, 2**33 - 1, 2**33, 2**50]),
    xattrs=st.dictionaries(
        st.sampled_from([b"user.a", b"security.capability", b"user.\xff"]), st.binary(max_size=200)
    ),
)


def read(header: bytes) -> object:
    return next(iter(HeaderReader(io.BytesIO(header + TRAILER).read)))


def test_doctests() -> None:
    assert doctest.testmod(tarheader).failed == 0


@given(members)
def test_our_reader(member: Member) -> None:
    header = tar_header(member)
    assert len(header) % BLOCK_BYTES == 0
    entry = read(header)
    for name in Member.__dataclass_fields__:
        assert getattr(entry, name) == getattr(member, name), name


@given(members)
def test_pythons_reader(member: Member) -> None:
    with tarfile.open(
        fileobj=io.BytesIO(tar_header(member) + TRAILER), encoding="utf-8", errors="surrogateescape"
    ) as archive:
        info = archive.next()
    assert info is not None
    assert info.name.encode("utf-8", "surrogateescape") == member.path
    assert (info.uid, info.gid, info.size) == (member.uid, member.gid, member.size_bytes)


@pytest.mark.parametrize("kind", [kind for kind in EntryKind if kind is not EntryKind.SPARSE])
def test_kinds(kind: EntryKind) -> None:
    target = b"target" * 30 if kind in (EntryKind.SYMLINK, EntryKind.HARDLINK) else b""
    rdev = 0x10302 if kind in (EntryKind.CHAR_DEVICE, EntryKind.BLOCK_DEVICE) else 0
    entry = read(tar_header(Member(b"a/b", kind, 0o644, link_target=target, rdev=rdev)))
    assert (entry.kind, entry.link_target, entry.rdev) == (kind, target, rdev)  # type: ignore[attr-defined]
    assert entry.path.rstrip(b"/") == b"a/b"  # type: ignore[attr-defined]


@pytest.mark.parametrize("length", [98, 99, 100, 101, 255, 256, 4000])
def test_names_of_directories_at_the_limits(length: int) -> None:
    path = b"d/" + b"n" * (length - 2)
    entry = read(tar_header(Member(path, EntryKind.DIRECTORY, 0o755)))
    assert entry.path.rstrip(b"/") == path  # type: ignore[attr-defined]


def test_a_plain_file_takes_one_block() -> None:
    assert (
        len(tar_header(Member(b"usr/bin/x", EntryKind.FILE, 0o755, mtime_s=1_700_000_000))) == 512
    )


@pytest.mark.parametrize("seconds", [-1, -5, -(2**33), -(2**63)])
def test_a_whole_second_before_1970_is_in_the_header(seconds: int) -> None:
    """composefs-rs 0.9 reads such a time there, and refuses it in an extended header."""
    header = tar_header(Member(b"x", EntryKind.FILE, 0o644, mtime_s=seconds))
    assert len(header) == BLOCK_BYTES
    assert header[136:148] == seconds.to_bytes(12, "big", signed=True)


@pytest.mark.parametrize(("size", "filled"), [(0, 0), (1, 511), (512, 0), (513, 511)])
def test_padding(size: int, filled: int) -> None:
    assert padding(size) == bytes(filled)
