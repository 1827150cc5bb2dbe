"""Where the C tools write something else than composefs-rs, and how they choose a version."""

from __future__ import annotations

import struct

import pytest

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs.epoch1 import lay_out, lay_out_by
from bootc.formats.erofs.inodes import Inode, Unrepresentable
from bootc.formats.erofs.reader import InvalidImage, read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.libcomposefs import erofs as libcomposefs
from bootc.formats.libcomposefs.tree import CTree, Stated
from bootc.formats.tree import (
    CharDevice,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Redirected,
    Sparse,
    Stat,
    Unverified,
)

DIGEST = Digest(Algorithm.SHA256, bytes(range(32)))


def with_whiteout() -> Directory:
    deep = Directory(Stat(), {b"gone": Leaf(Stat(), CharDevice(0))})
    return Directory(Stat(), {b"a": Leaf(Stat(), CharDevice(1)), b"d": deep})


@pytest.mark.parametrize(
    ("tree", "low", "high", "version"),
    [
        (with_whiteout(), 0, 1, 1),
        (with_whiteout(), 0, 9, 1),
        (with_whiteout(), 0, 0, 0),
        (with_whiteout(), 1, 1, 1),
        (with_whiteout(), 1, 0, 1),
        (Directory(), 0, 1, 0),
        (Directory(), 1, 1, 1),
    ],
)
def test_the_version_the_c_tools_choose(tree: Directory, low: int, high: int, version: int) -> None:
    assert libcomposefs.format_version(tree, low, high) == version


@pytest.mark.parametrize(("low", "high"), [(2, 2), (-1, 1), (0, -1)])
def test_versions_the_c_tools_do_not_have(low: int, high: int) -> None:
    with pytest.raises(ValueError, match=f"versions {low} to {high}"):
        libcomposefs.format_version(Directory(), low, high)


def strict_inode(root: Directory, name: bytes) -> Inode:
    top = lay_out(root, 1).inodes[0]
    return top.children[top.names.index(name)]


def inode(tree: CTree, name: bytes) -> Inode:
    top = lay_out_by(libcomposefs.Rules(tree, 1), tree.root).inodes[0]
    return top.children[top.names.index(name)]


def test_link_counts_are_those_of_the_source() -> None:
    leaf = Leaf(Stat(), Fifo())
    root = Directory(Stat(), {b"f": leaf})
    tree = CTree(root, {leaf: Stated(9)})
    assert strict_inode(root, b"f").nlink == 1
    assert inode(tree, b"f").nlink == 9
    image = libcomposefs.mkfs_erofs(tree)
    with pytest.raises(InvalidImage, match="9 links announced, 1 found"):
        read_erofs(image)
    again = libcomposefs.read_erofs(image)
    assert again.stated[again.root.entries[b"f"]] == Stated(9, home=again.root, name=b"f")
    assert libcomposefs.mkfs_erofs(again) == image


def test_a_file_is_numbered_where_the_source_has_no_hard_link() -> None:
    leaf = Leaf(Stat(), Fifo())
    root = Directory(Stat(), {b"a": Directory(Stat(), {b"z": leaf}), b"b": leaf, b"c": leaf})
    assert strict_inode(root, b"b").number == 1 + 256 + 1
    tree = CTree(root, {leaf: Stated(3, home=root, name=b"c")})
    # Among 256 stubs and "a", "b" and "c" comes last but for those from c0 on.
    assert inode(tree, b"b").number == 1 + 0xC0 + 1


def test_times_before_1970_are_the_earliest() -> None:
    root = Directory(Stat(mtime_s=7), {b"old": Leaf(Stat(mtime_s=-2, mtime_ns=3), Fifo())})
    image = libcomposefs.mkfs_erofs(CTree(root))
    assert struct.unpack_from("<qI", image, 1048) == (-2, 3)
    assert read_erofs(image).entries[b"old"].stat == Stat(mtime_s=-2, mtime_ns=3)


def test_at_most_128_xattrs_of_an_inode_are_shared() -> None:
    xattrs = {b"user.%03d" % i: b"v" for i in range(130)}
    root = Directory(Stat(), {b"a": Leaf(Stat(xattrs=dict(xattrs)), Fifo())})
    root.entries[b"b"] = Leaf(Stat(xattrs=dict(xattrs)), Fifo())
    strict = mkfs_erofs(root), strict_inode(root, b"a").position, 130
    as_c = libcomposefs.mkfs_erofs(CTree(root)), inode(CTree(root), b"a").position, 128
    for image, position, shared in (strict, as_c):
        assert image[position + 32 + 4] == shared
        assert read_erofs(image).entries[b"b"].stat.xattrs == xattrs


def test_c_stores_fewer_bytes_of_xattrs() -> None:
    # 12 for all, 7 for each, the name, the value: 32767 is the limit.
    for length, fits in [(32767 - 12 - 7 - 6, True), (32767 - 12 - 7 - 5, False)]:
        root = Directory(Stat(), {b"f": Leaf(Stat(xattrs={b"user.a": bytes(length)}), Fifo())})
        mkfs_erofs(root)
        if fits:
            libcomposefs.mkfs_erofs(CTree(root))
        else:
            with pytest.raises(Unrepresentable, match="more than C stores"):
                libcomposefs.mkfs_erofs(CTree(root))


def test_a_hard_linked_whiteout_marks_only_the_directory_it_is_from() -> None:
    gone = Leaf(Stat(), CharDevice(0))
    home, other = Directory(Stat(), {b"g": gone}), Directory(Stat(), {b"g": gone})
    root = Directory(Stat(), {b"home": home, b"other": other})
    tree = CTree(root, {gone: Stated(2, home=home, name=b"g")})
    with pytest.raises(Unrepresentable, match="whiteout"):
        mkfs_erofs(root)
    assert len(inode(tree, b"home").xattrs) == 4
    assert inode(tree, b"other").xattrs == ()
    again = libcomposefs.read_erofs(libcomposefs.mkfs_erofs(tree)).root
    assert again.lookup("home/g") is again.lookup("other/g")


@pytest.mark.parametrize(
    "content",
    [
        Redirected(DIGEST, 5000, b""),
        Redirected(DIGEST, 5000, b"else/where"),
        Unverified(DIGEST.object_path.encode(), 7),
        Sparse(7),
    ],
)
def test_paths_that_are_not_the_digests(content: External | Unverified | Sparse) -> None:
    root = Directory(Stat(), {b"f": Leaf(Stat(), content)})
    assert read_erofs(mkfs_erofs(root)).entries[b"f"].content == content  # type: ignore[union-attr]


def test_reading_as_composefs_info_does() -> None:
    """Opaque marks stay, shared xattrs come last, long digests and devices 0:0 are not seen."""
    long = Digest(Algorithm.SHA512, bytes(64))
    label = {b"user.b": b"x"}
    home = Directory(Stat(xattrs=label | {b"user.c": b"y"}), {b"g": Leaf(Stat(), CharDevice(0))})
    root = Directory(
        Stat(),
        {
            b"f": Leaf(Stat(xattrs=dict(label)), External(long, 7)),
            b"h": home,
            b"s": Leaf(Stat(xattrs={b"user.overlay.whiteouts": b""}), Inline(b"")),
        },
    )
    tree = libcomposefs.read_erofs(mkfs_erofs(root))
    again = tree.root
    directory = again.entries[b"h"]
    assert list(directory.stat.xattrs) == [
        b"trusted.overlay.opaque",
        b"user.c",
        b"user.overlay.opaque",
        b"user.b",
    ]
    assert tree.stated[directory] == Stated(2, size_bytes=12 * 3 + 4)
    assert again.lookup("f").content == Unverified(long.object_path.encode(), 7)  # type: ignore[union-attr]
    assert again.lookup("h/g").content == CharDevice(0)  # type: ignore[union-attr]
    assert again.entries[b"s"].stat.xattrs == {}

    version_2 = libcomposefs.read_erofs(mkfs_erofs(root, version=2))
    assert version_2.root.lookup("h/g") is None
