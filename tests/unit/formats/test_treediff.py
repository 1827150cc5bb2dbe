from __future__ import annotations

import pytest

from bootc.formats import treediff
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Socket,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)
from bootc.formats.treediff import Aspect, Difference, summarise
from bootc.formats.verity import verity_digest

DATA = b"x" * 65
OBJECT = verity_digest(DATA, Algorithm.SHA256)


def tree(**entries: Directory | Leaf) -> Directory:
    return Directory(Stat(0o755), {name.encode(): node for name, node in entries.items()})


def compare(a: Directory, b: Directory) -> list[Difference]:
    return list(treediff.compare(a, b))


def told(differences: list[Difference]) -> list[tuple[bytes, Aspect, str | None, str | None]]:
    return [(d.path, d.aspect, d.a, d.b) for d in differences]


def test_equal_trees() -> None:
    def make() -> Directory:
        leaf = Leaf(Stat(0o644, 1, 2, 3, 4, {b"user.x": b"y"}), Inline(b"data"))
        return tree(a=leaf, b=leaf, c=tree(d=Leaf(Stat(), Symlink(b"e"))))

    assert compare(make(), make()) == []


def test_metadata_of_one_entry() -> None:
    a = tree(etc=Directory(Stat(0o755, 0, 0, 0, 0, {b"user.a": b"1", b"user.c": b"\0"})))
    b = tree(etc=Directory(Stat(0o4700, 1, 2, 86400, 7, {b"user.b": b"2", b"user.c": b""})))
    assert told(compare(a, b)) == [
        (b"/etc", Aspect.MODE, "0755", "4700"),
        (b"/etc", Aspect.OWNER, "0:0", "1:2"),
        (b"/etc", Aspect.MTIME, "1970-01-01T00:00:00Z", "1970-01-02T00:00:00.000000007Z"),
        (b"/etc", Aspect.XATTR, "1", None),
        (b"/etc", Aspect.XATTR, None, "2"),
        (b"/etc", Aspect.XATTR, "\\x00", ""),
    ]
    assert [d.name for d in compare(a, b)] == [b"", b"", b"", b"user.a", b"user.b", b"user.c"]


def test_nanoseconds_are_their_own_class_only_when_seconds_agree() -> None:
    a, b = tree(), tree()
    b.stat.mtime_ns = 5
    assert [d.aspect for d in compare(a, b)] == [Aspect.MTIME_NS]
    b.stat.mtime_s = -1
    assert told(compare(a, b)) == [
        (b"/", Aspect.MTIME, "1970-01-01T00:00:00Z", "1969-12-31T23:59:59.000000005Z")
    ]


def test_a_time_no_calendar_has() -> None:
    b = tree()
    b.stat.mtime_s, b.stat.mtime_ns = 2**62, 5
    assert compare(tree(), b)[0].b == "@4611686018427387904.000000005"


@pytest.mark.parametrize(
    ("x", "y", "aspect", "a", "b"),
    [
        (Inline(b"x"), Symlink(b"x"), Aspect.TYPE, "regular file", "symlink"),
        (CharDevice(1), BlockDevice(1), Aspect.TYPE, "character device", "block device"),
        (Fifo(), Socket(), Aspect.TYPE, "fifo", "socket"),
        (Symlink(b"a"), Symlink(b"\xff\n"), Aspect.TARGET, "a", "\\xff\\n"),
        (CharDevice(1), CharDevice(2), Aspect.DEVICE, "1", "2"),
        (
            Inline(b"a"),
            Inline(b"bc"),
            Aspect.CONTENT,
            "1 inline bytes",
            "2 inline bytes",
        ),
        (
            External(OBJECT, 65),
            Inline(b"y" * 65),
            Aspect.CONTENT,
            f"65 bytes, object {OBJECT.hex[:12]}…",
            "65 inline bytes",
        ),
        (
            Inline(DATA),
            External(OBJECT, 65),
            Aspect.STORAGE,
            "65 inline bytes",
            f"65 bytes, object {OBJECT.hex[:12]}…",
        ),
        (
            External(OBJECT, 65),
            Unverified(OBJECT.object_path.encode(), 65),
            Aspect.STORAGE,
            f"65 bytes, object {OBJECT.hex[:12]}…",
            f"65 bytes, file {OBJECT.object_path} with no digest",
        ),
        (
            External(OBJECT, 65),
            External(Digest(Algorithm.SHA512, bytes(64)), 65),
            Aspect.ALGORITHM,
            f"65 bytes, object {OBJECT.hex[:12]}…",
            "65 bytes, object 000000000000…",
        ),
        (
            External(OBJECT, 65),
            External(Digest(Algorithm.SHA512, bytes(64)), 66),
            Aspect.CONTENT,
            f"65 bytes, object {OBJECT.hex[:12]}…",
            "66 bytes, object 000000000000…",
        ),
        (
            Sparse(3),
            Inline(b"abc"),
            Aspect.CONTENT,
            "3 bytes, all a hole",
            "3 inline bytes",
        ),
    ],
)
def test_contents(x: Content, y: Content, aspect: Aspect, a: str, b: str) -> None:
    found = compare(tree(f=Leaf(Stat(), x)), tree(f=Leaf(Stat(), y)))
    assert told(found) == [(b"/f", aspect, a, b)]


def test_a_missing_directory_is_one_difference_that_counts_what_is_below() -> None:
    extra = tree(sub=tree(f=Leaf(Stat(), Fifo())), g=Leaf(Stat(), Fifo()))
    (found,) = compare(tree(), tree(extra=extra))
    assert (found.path, found.aspect, found.a, found.b) == (
        b"/extra",
        Aspect.ENTRY,
        None,
        "directory",
    )
    assert (found.entries, found.directories) == (4, 2)


def test_a_file_in_the_place_of_a_directory() -> None:
    a = tree(x=Leaf(Stat(0o755), Fifo()))
    b = tree(x=tree(y=Leaf(Stat(), Fifo())))
    assert told(compare(a, b)) == [
        (b"/x", Aspect.TYPE, "fifo", "directory"),
        (b"/x/y", Aspect.ENTRY, None, "fifo"),
    ]


def test_hard_links() -> None:
    def make(*, linked: bool) -> Directory:
        one = Leaf(Stat(), Inline(b"same"))
        other = one if linked else Leaf(Stat(), Inline(b"same"))
        return tree(a=one, b=tree(c=other))

    (found,) = compare(make(linked=True), make(linked=False))
    assert (found.path, found.aspect, found.a, found.b) == (
        b"/b/c",
        Aspect.LINKS,
        "the same file as /a",
        "a file of its own",
    )
    assert found.first_names == (b"/a", b"/b/c")
    assert compare(make(linked=True), make(linked=True)) == []


def test_a_link_missing_on_one_side_is_a_missing_entry_only() -> None:
    leaf = Leaf(Stat(), Inline(b""))
    found = compare(tree(a=leaf, b=leaf), tree(a=Leaf(Stat(), Inline(b""))))
    assert told(found) == [(b"/b", Aspect.ENTRY, "regular file", None)]


def test_the_order_is_that_of_a_dumpfile() -> None:
    def make(mode: int) -> Directory:
        inner = Directory(Stat(mode), {b"b": Leaf(Stat(mode), Fifo())})
        return tree(**{"a-b": Leaf(Stat(mode), Fifo()), "a": inner})

    assert [d.path for d in compare(make(0), make(1))] == [b"/a", b"/a/b", b"/a-b"]


def test_long_values_are_cut() -> None:
    a, b = tree(), tree()
    a.stat.xattrs[b"user.long"] = b"x" * 500
    assert compare(a, b)[0].a == "x" * 120 + "… (500 bytes)"


def test_summary() -> None:
    a, b = tree(), tree()
    for i in range(7):
        name = b"%d" % i
        a.entries[name] = Leaf(Stat(xattrs={b"user.b": b"1"}), Fifo())
        b.entries[name] = Leaf(Stat(mode=1), Fifo())
    b.stat.xattrs = {b"user.a": b"1"}
    b.entries[b"d"] = tree(f=Leaf(Stat(), Fifo()))
    findings = summarise(compare(a, b), examples=2)
    assert [(f.aspect, f.name, f.entries, f.directories, f.only_a, f.only_b) for f in findings] == [
        (Aspect.ENTRY, b"", 2, 1, 0, 2),
        (Aspect.MODE, b"", 7, 0, 0, 0),
        (Aspect.XATTR, b"user.a", 1, 1, 0, 1),
        (Aspect.XATTR, b"user.b", 7, 0, 7, 0),
    ]
    assert [e.path for e in findings[1].examples] == [b"/0", b"/1"]


def test_deep_trees() -> None:
    def deep(mode: int) -> Directory:
        node = Directory(Stat(mode))
        for _ in range(3000):
            node = Directory(Stat(), {b"d": node})
        return node

    (found,) = compare(deep(1), deep(2))
    assert found.path == b"/d" * 3000
