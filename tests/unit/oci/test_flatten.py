from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from bootc.formats.digest import OciDigest
from bootc.formats.tar import Entry, EntryKind, HeaderReader
from bootc.formats.tree import CharDevice, Directory, Inline, Leaf, Symlink
from bootc.oci import resolve
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


USR_MERGED = (
    *(directory(d) for d in ("usr", "usr/bin", "usr/lib", "etc")),
    *(file("usr/bin/sh", b"sh"), symlink("bin", "usr/bin"), symlink("lib", "/usr/lib")),
)


def merged_with(*members: Member) -> dict[str, object]:
    """Return what a layer changes in a tree with ``/bin`` and ``/lib`` as symlinks."""
    before, after = shape(tree(USR_MERGED)), shape(tree(USR_MERGED, members))
    assert (after["/bin"], after["/lib"]) == (b"usr/bin", b"/usr/lib")
    gone: dict[str, object] = dict.fromkeys(before.keys() - after.keys(), "gone")
    return gone | {path: after[path] for path in after if before.get(path, b"?") != after[path]}


@pytest.mark.parametrize(
    ("members", "changed"),
    [
        ([file("bin/x", b"1")], {"/usr/bin/x": b"1"}),
        ([file("lib/x", b"1")], {"/usr/lib/x": b"1"}),
        ([file("lib/new/x", b"1")], {"/usr/lib/new": None, "/usr/lib/new/x": b"1"}),
        ([directory("lib/d"), file("lib/d/x", b"1")], {"/usr/lib/d": None, "/usr/lib/d/x": b"1"}),
        ([symlink("bin/x", "sh")], {"/usr/bin/x": b"sh"}),
        ([hardlink("etc/sh", "bin/sh")], {"/etc/sh": b"sh"}),
        ([hardlink("bin/ash", "bin/sh")], {"/usr/bin/ash": b"sh"}),
        ([file("bin/.wh.sh")], {"/usr/bin/sh": "gone"}),
        ([file("bin/.wh..wh..opq")], {"/usr/bin/sh": "gone"}),
        ([file("bin/none/.wh.sh")], {}),
        # A link to a link, and one that leads back up.
        (
            [symlink("b", "bin/../bin/."), file("b/x", b"1")],
            {"/b": b"bin/../bin/.", "/usr/bin/x": b"1"},
        ),
        # The last name is never followed: the link itself is replaced.
        ([symlink("etc/l", "../bin"), file("etc/l", b"1")], {"/etc/l": b"1"}),
        # No way out: the root is its own parent, and absolute targets start there.
        (
            [symlink("up", "../../../.."), file("up/etc/x", b"1")],
            {"/up": b"../../../..", "/etc/x": b"1"},
        ),
        (
            [symlink("etc/up", "/../../usr/../etc"), file("etc/up/x", b"1")],
            {"/etc/up": b"/../../usr/../etc", "/etc/x": b"1"},
        ),
        # A link to nothing: the directory is made where it leads.
        (
            [symlink("opt", "var/opt"), file("opt/x", b"1")],
            {"/opt": b"var/opt", "/var": None, "/var/opt": None, "/var/opt/x": b"1"},
        ),
        ([symlink("opt", "var/opt"), file("opt/.wh.x")], {"/opt": b"var/opt"}),
        ([symlink("a", "a"), file("a/.wh.x")], {"/a": b"a"}),
    ],
)
def test_parents_that_are_symlinks(members: list[Member], changed: dict[str, object]) -> None:
    assert merged_with(*members) == changed


def test_forty_links_are_followed_and_no_more() -> None:
    chain = [symlink(f"l{number}", f"l{number + 1}") for number in range(40)]
    members = [directory("l40"), *chain, file("l0/x", b"1")]
    assert shape(tree(tuple(members)))["/l40/x"] == b"1"
    with pytest.raises(FlattenError, match="entry 'more/x': its path leads through more than 40"):
        tree((*members, symlink("more", "l0"), file("more/x")))


def test_steps_along_links_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "MAX_LINK_STEPS", 5000)
    deep = "d/../" * 100
    entries = [directory("d"), symlink("l", deep), *(file(f"l/{n}") for n in range(20))]
    assert "/19" in shape(tree(tuple(entries)))
    with pytest.raises(FlattenError, match="entry 'l/24': the paths of the layer need more than"):
        tree((*entries[:2], *(file(f"l/{n}") for n in range(100))))


@pytest.mark.parametrize(
    ("above", "warning"),
    [
        ([directory("bin")], "the directory 'bin' replaces a symbolic link to 'usr/bin'"),
        # An empty directory hides nothing, a file is what somebody meant.
        ([directory("lib")], None),
        ([file("bin")], None),
        ([symlink("bin", "usr/lib")], None),
        ([file("bin/x")], None),
    ],
)
def test_a_directory_in_place_of_a_link_is_warned_of(
    above: list[Member], warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    root = tree(USR_MERGED, tuple(above))
    assert [record.message.split(",")[0] for record in caplog.records] == (
        [] if warning is None else [f"layer {LAYER}: {warning}"]
    )
    # As in composefs-rs: the directory is empty.
    if warning is not None:
        assert shape(root)["/bin"] is None
        assert "/bin/sh" not in shape(root)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([file("../etc/passwd")], "entry '../etc/passwd': its path leads upwards"),
        ([file("a/../../b")], "its path leads upwards"),
        ([file("/..")], "its path leads upwards"),
        ([file("a"), hardlink("b", "../a")], "entry 'b': its path leads upwards"),
        ([file("a"), file("a/b")], "entry 'a/b': its parent is not a directory"),
        ([symlink("a", "f"), file("f"), file("a/b")], "entry 'a/b': its parent is not a directory"),
        ([symlink("a", "a"), file("a/b")], "through more than 40 symbolic links"),
        ([symlink("a", "b"), symlink("b", "/a"), file("b/c")], "through more than 40 symbolic"),
        ([symlink("a", ".wh.x"), file("a/b")], "bad name of a directory"),
        ([symlink("a", "n" * 256), file("a/b")], "bad name of a directory"),
        ([symlink("a", "a"), hardlink("b", "a/b")], "target of the hard link, 'a/b', does not"),
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
