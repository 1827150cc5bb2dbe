from __future__ import annotations

import pytest

from bootc.cli.render.etc import change_lines
from bootc.deploy.etc.diff import local_changes, same, without_stamp
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.tree import (
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Redirected,
    Socket,
    Stat,
    Symlink,
)
from bootc.formats.verity import verity_digest
from support.etctrees import directory, etc, file, link, listing, stat


def lines(pristine: Directory, current: Directory) -> list[str]:
    return list(change_lines(local_changes(pristine, current)))


def test_nothing_changed() -> None:
    both = etc(a="1", d=directory(b="2"), l=link("x"))
    assert lines(both, both) == []


def test_the_order_of_the_report() -> None:
    pristine = etc({"z": "1", "gone.d": directory(x="", y=directory(z="")), "m": "1", "b": ""})
    current = etc({"new.d": directory(q="", a="1"), "m": "2", "a": "", "z": file("1", 0o600)})
    assert lines(pristine, current) == [
        'Added "a"',
        'Added "new.d"',
        'Added "new.d/a"',
        'Added "new.d/q"',
        'Modified "m"',
        'Modified "z"',
        'Removed "b"',
        'Removed "gone.d"',
    ]


def test_a_directory_is_modified_by_itself_only() -> None:
    pristine = etc(d=directory(a="1"), e=directory(a="1"))
    current = etc(d=directory(a="2"), e=directory(0o700, a="1"))
    assert lines(pristine, current) == ['Modified "d/a"', 'Modified "e"']


def test_what_chattr_protects_is_a_change() -> None:
    current = etc(a="1", d=directory(b="2"))
    current.entries[b"a"].stat.protection = 0x10
    current.entries[b"d"].stat.protection = 0x20
    assert lines(etc(a="1", d=directory(b="2")), current) == ['Modified "a"', 'Modified "d"']


def test_a_change_of_kind_lists_what_is_there_now() -> None:
    pristine = etc(a="file", d=directory(x=directory(y="")))
    current = etc(a=directory(inside="1"), d=link("elsewhere"))
    assert lines(pristine, current) == ['Added "a/inside"', 'Modified "a"', 'Modified "d"']


def test_names_are_sorted_by_bytes() -> None:
    current = etc({"a": directory(b=""), "a-b": "", "a.b": "", "B": ""})
    assert [change.path for change in local_changes(etc(), current)] == [
        b"B",
        b"a",
        b"a/b",
        b"a-b",
        b"a.b",
    ]


def test_the_stamp_and_etc_itself_are_no_changes() -> None:
    current = etc(_updated="now", a="1")
    current.stat = stat(0o700)
    assert lines(etc(a="1"), current) == []
    assert listing(without_stamp(current)) == {"a": "1"}
    assert current.lookup(".updated") is not None


def test_a_stamp_further_down_is_a_file() -> None:
    assert lines(etc(d=directory()), etc(d=directory(_updated=""))) == ['Added "d/.updated"']


BIG, OTHER = b"b" * 5000, b"o" * 5000


def external(data: bytes, algorithm: Algorithm = Algorithm.SHA512) -> External:
    return External(verity_digest(data, algorithm), len(data))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (Inline(b"x"), Inline(b"x"), True),
        (Inline(b"x"), Inline(b"y"), False),
        (external(BIG), external(BIG), True),
        (external(BIG), external(OTHER), False),
        # The image's object may have a place of its own.
        (external(BIG), Redirected(external(BIG).digest, len(BIG), b"ab/cd"), True),
        # How large a file is kept in an image depends on the image.
        (Inline(BIG), external(BIG), True),
        (external(BIG, Algorithm.SHA256), Inline(BIG), True),
        (Inline(BIG), external(OTHER), False),
        (external(BIG), Inline(BIG + b"b"), False),
        # Two hashes of the same cannot be known to be that.
        (external(BIG), external(BIG, Algorithm.SHA256), False),
        (Symlink(b"x"), Symlink(b"x"), True),
        (Symlink(b"x"), Symlink(b"y"), False),
        (Symlink(b"x"), Inline(b"x"), False),
        (CharDevice(1), CharDevice(1), True),
        (CharDevice(1), CharDevice(2), False),
        (Fifo(), Fifo(), True),
        (Fifo(), Socket(), False),
    ],
)
def test_sameness_of_contents(a: Content, b: Content, expected: bool) -> None:
    assert same(Leaf(Stat(0o644), a), Leaf(Stat(0o644), b)) is expected


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (Stat(0o644, 1, 2, 5, 6, {b"user.a": b"1"}), True),
        (Stat(0o644, 1, 2, 99, 0, {b"user.a": b"1"}), True),
        (Stat(0o4644, 1, 2, 5, 6, {b"user.a": b"1"}), False),
        (Stat(0o644, 0, 2, 5, 6, {b"user.a": b"1"}), False),
        (Stat(0o644, 1, 0, 5, 6, {b"user.a": b"1"}), False),
        (Stat(0o644, 1, 2, 5, 6, {b"user.a": b"2"}), False),
        (Stat(0o644, 1, 2, 5, 6, {}), False),
        (Stat(0o644, 1, 2, 5, 6, {b"user.a": b"1", b"security.capability": b"x" * 300}), False),
    ],
)
def test_sameness_of_metadata(other: Stat, expected: bool) -> None:
    this = Stat(0o644, 1, 2, 5, 6, {b"user.a": b"1"})
    assert same(Leaf(this, Inline(b"")), Leaf(other, Inline(b""))) is expected
    assert same(Directory(this), Directory(other)) is expected


def test_the_mode_of_a_symlink_says_nothing() -> None:
    assert same(Leaf(Stat(0o777), Symlink(b"x")), Leaf(Stat(0o644), Symlink(b"x")))


def test_kinds_and_absence() -> None:
    assert not same(directory(), file())
    assert not same(file(), directory())
    assert not same(None, file())
    assert not same(file(), None)
    assert same(None, None)


def test_a_file_with_verity_is_told_by_its_content() -> None:
    """Upstream takes any two files that have fs-verity for the same."""
    digests = [Digest(Algorithm.SHA512, bytes([n]) * 64) for n in (1, 2)]
    pristine, current = (etc(a=file(External(digest, 4096))) for digest in digests)
    assert lines(pristine, current) == ['Modified "a"']
