from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from bootc.formats.digest import OciDigest
from bootc.formats.tar import Entry, EntryKind, HeaderReader
from bootc.formats.tree import CharDevice, Directory, Inline, Leaf, Symlink
from bootc.oci.flatten import FlattenError, apply_layer
from support.images import Member, directory, file, hardlink, layer, member, symlink, xattr

LAYER = OciDigest.of(b"layer")


def entries(*members: Member) -> Iterator[tuple[Entry, Inline]]:
    stream = io.BytesIO(layer(*members))
    for entry in HeaderReader(stream.read):
        yield entry, Inline(stream.read(entry.size_bytes))
        stream.seek(entry.padding_bytes, io.SEEK_CUR)


def tree(*layers: tuple[Member, ...]) -> Directory:
    root = Directory()
    for members in layers:
        apply_layer(root, LAYER, entries(*members))
    return root


def shape(root: Directory) -> dict[str, object]:
    """Return paths with the content of files, the target of links, None for directories."""
    found: dict[str, object] = {}
    for path, node in root.walk():
        content = None if isinstance(node, Directory) else node.content
        match content:
            case Inline():
                content = content.data
            case Symlink():
                content = content.target
        found[path.decode()] = content
    del found["/"]
    return found


def leaf(root: Directory, path: str) -> Leaf:
    node = root.lookup(path)
    assert isinstance(node, Leaf)
    return node


def test_spellings_of_paths() -> None:
    root = tree(
        (
            directory("./", 0o700),
            directory("./a//"),
            file("/a/./b", b"1"),
            file("a///c", b"2"),
        )
    )
    assert shape(root) == {"/a": None, "/a/b": b"1", "/a/c": b"2"}
    assert root.stat.mode == 0o700


def test_metadata() -> None:
    root = tree(
        (
            file("f", b"", 0o4711, uid=5, gid=6, mtime=7.5, pax_headers=xattr("user.x", "y")),
            member("c", b"3", devmajor=1, devminor=3),
        )
    )
    stat = leaf(root, "f").stat
    assert (stat.mode, stat.uid, stat.gid, stat.mtime_s, stat.mtime_ns) == (
        *(0o4711, 5, 6),
        *(7, 500_000_000),
    )
    assert stat.xattrs == {b"user.x": b"y"}
    assert leaf(root, "c").content == CharDevice(0x103)


def test_replacement() -> None:
    below = (directory("d", 0o700), file("d/kept", b"k"), file("f", b"old"), symlink("l", "x"))
    above = (directory("d", 0o711), directory("f"), file("l", b"now a file"))
    root = tree(below, above)
    assert shape(root) == {"/d": None, "/d/kept": b"k", "/f": None, "/l": b"now a file"}
    node = root.lookup("d")
    assert isinstance(node, Directory)
    assert node.stat.mode == 0o711
    assert shape(tree(below, (file("d", b"gone"),)))["/d"] == b"gone"


def test_whiteouts() -> None:
    below = (
        directory("d"),
        directory("d/sub"),
        file("d/sub/deep", b"1"),
        file("d/x", b"2"),
        file("y", b"3"),
    )
    assert shape(tree(below, (file("d/.wh.sub"), file(".wh.y"), file(".wh.never")))) == {
        "/d": None,
        "/d/x": b"2",
    }
    assert shape(tree(below, (file("no/such/.wh.thing"),))) == shape(tree(below))
    # Hidden, then made anew.
    assert shape(tree(below, (file(".wh.d"), directory("d"), file("d/new", b"n")))) == {
        "/d": None,
        "/d/new": b"n",
        "/y": b"3",
    }


def test_opaque_directories() -> None:
    below = (directory("d"), file("d/old", b"1"), file("e", b"2"))
    above = (directory("d"), file("d/.wh..wh..opq"), file("d/new", b"3"))
    assert shape(tree(below, above)) == {"/d": None, "/d/new": b"3", "/e": b"2"}
    # What came before the marker in its own layer goes as well, as in composefs-rs.
    late = (directory("d"), file("d/new", b"3"), file("d/.wh..wh..opq"))
    assert shape(tree(below, late)) == {"/d": None, "/e": b"2"}
    assert shape(tree(below, (file(".wh..wh..opq"),))) == {}


def test_hard_links() -> None:
    root = tree((directory("d"), file("d/one", b"1", 0o600), hardlink("two", "./d/one")))
    assert leaf(root, "two") is leaf(root, "d/one")
    assert leaf(root, "two").stat.mode == 0o600
    # The other name keeps the inode when the first goes.
    apply_layer(root, LAYER, entries(file("d/one", b"new")))
    assert leaf(root, "two").content == Inline(b"1")
    # Symlinks can be linked too.
    root = tree((symlink("a", "x"), hardlink("b", "a")))
    assert leaf(root, "b") is leaf(root, "a")


def test_parents_nobody_listed_are_made() -> None:
    root = tree((file("a/b/c", b"1", uid=7),))
    assert shape(root) == {"/a": None, "/a/b": None, "/a/b/c": b"1"}
    made = root.lookup("a/b")
    assert isinstance(made, Directory)
    stat = made.stat
    assert (stat.mode, stat.uid, stat.gid, stat.mtime_s, stat.mtime_ns) == (0o755, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([file("../etc/passwd")], "entry '../etc/passwd': its path leads upwards"),
        ([file("a/../../b")], "its path leads upwards"),
        ([file("/..")], "its path leads upwards"),
        ([file("a"), hardlink("b", "../a")], "entry 'b': its path leads upwards"),
        ([file("a"), file("a/b")], "entry 'a/b': its parent is not a directory"),
        ([symlink("a", "/etc"), file("a/b")], "entry 'a/b': its parent is not a directory"),
        ([file("./")], "the root must be a directory"),
        ([hardlink("b", "a")], "target of the hard link, 'a', does not exist"),
        ([directory("a"), hardlink("b", "a")], "target of the hard link, 'a', is a directory"),
        ([hardlink("b", "/")], "target of the hard link, '/', is a directory"),
        ([file(".wh.")], "a whiteout of nothing"),
        ([file("d/.wh.."), file("x")], None),
        ([directory("d"), file("d/.wh...")], "a whiteout of nothing"),
        ([file(".wh.dir/file")], "bad name of a directory"),
        ([file("n" * 256)], "name too long"),
        ([file("n" * 256 + "/f")], "bad name of a directory"),
    ],
)
def test_refused(members: list[Member], message: str | None) -> None:
    if message is None:
        assert shape(tree(tuple(members))) == {"/x": b""}
        return
    with pytest.raises(FlattenError, match=message) as caught:
        tree(tuple(members))
    assert f"layer {LAYER}" in caught.value.message


def test_names_are_bytes() -> None:
    root = Directory()
    entry = Entry(b"\xff\n", EntryKind.FIFO, 0, 0, 0, 0, 0, 0, b"", 0, {}, 0, b"")
    apply_layer(root, LAYER, [(entry, Inline(b""))])
    assert list(root.entries) == [b"\xff\n"]
