from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs.epoch1 import lay_out
from bootc.formats.erofs.reader import InvalidImage, read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import (
    CharDevice,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)

DIGEST = Digest(Algorithm.SHA256, bytes(range(32)))


def tree() -> Directory:
    """One of everything; all but ``file`` have compact inodes."""
    shared = {b"security.selinux": b"label"}
    file = Leaf(Stat(0o644, 1, 2, 10, 4, dict(shared)), Inline(b"content"))
    return Directory(
        Stat(0o755, mtime_s=9),
        {
            b"dir": Directory(Stat(0o700, mtime_s=9, xattrs=dict(shared)), {b"link": file}),
            b"external": Leaf(Stat(mtime_s=9), External(DIGEST, 5000)),
            b"file": file,
            b"gone": Leaf(Stat(mtime_s=9), CharDevice(0)),
            b"pipe": Leaf(Stat(mtime_s=9), Fifo()),
            b"sym": Leaf(Stat(mtime_s=9), Symlink(b"target")),
        },
    )


def position(name: bytes) -> int:
    """Offset of an inode of the tree."""
    root = lay_out(tree(), 1).inodes[0]
    return root.children[root.names.index(name)].position


@pytest.mark.parametrize("version", [0, 1, 2])
def test_a_part(version: int) -> None:
    """Two subtrees, with a hard link that leads out of them, and nothing else."""
    linked = Leaf(Stat(0o600), Inline(b"linked"))
    marked = Stat(0o750, xattrs={b"user.mine": b"1"})
    root = Directory(
        Stat(),
        {
            b"etc": Directory(marked, {b"f": linked, b"gone": Leaf(Stat(), CharDevice(0))}),
            b"usr": Directory(
                marked,
                {
                    b"lib": Directory(Stat(), {b"a": linked, b"b": Directory(Stat(), {})}),
                    b"whiteout": Leaf(Stat(), CharDevice(0)),
                },
            ),
            b"x": linked,
        },
    )
    image = mkfs_erofs(root, version=version)
    part = read_erofs(image, below=["etc", "usr/lib/b", "usr/lib/none", "x/y", "none"])
    found = {path: node for path, node in part.walk() if path != b"/"}
    assert sorted(found) == [
        b"/etc", b"/etc/f", b"/etc/gone", b"/usr", b"/usr/lib", b"/usr/lib/b", b"/x",
    ]  # fmt: skip
    whole = dict(read_erofs(image).walk())
    on_the_way = {b"/usr", b"/usr/lib"}
    for path in found.keys() - on_the_way:
        assert found[path].stat == whole[path].stat
        assert getattr(found[path], "content", None) == getattr(whole[path], "content", None)
    assert found[b"/etc"].stat == marked
    assert found[b"/usr"].stat == Stat(0o750)
    assert found[b"/etc/f"] is found[b"/x"]


def test_what_is_not_asked_for_is_not_read() -> None:
    image = bytearray(mkfs_erofs(tree()))
    start = position(b"pipe")
    image[start : start + 32] = b"\xff" * 32
    with pytest.raises(InvalidImage):
        read_erofs(bytes(image))
    assert sorted(read_erofs(bytes(image), below=["dir"]).entries) == [b"dir"]
    with pytest.raises(InvalidImage):
        read_erofs(bytes(image), below=["pipe"])


def test_everything_comes_back() -> None:
    root = read_erofs(mkfs_erofs(tree()))
    assert root.stat == Stat(0o755, mtime_s=9)
    assert sorted(root.entries) == [b"dir", b"external", b"file", b"gone", b"pipe", b"sym"]
    directory = root.entries[b"dir"]
    file = root.entries[b"file"]
    external = root.lookup("external")
    assert isinstance(directory, Directory)
    assert isinstance(file, Leaf)
    assert isinstance(external, Leaf)
    assert directory.stat == Stat(0o700, mtime_s=9, xattrs={b"security.selinux": b"label"})
    assert directory.entries == {b"link": file}
    assert file.stat == Stat(0o644, 1, 2, 10, 4, {b"security.selinux": b"label"})
    assert file.content == Inline(b"content")
    assert external.content == External(DIGEST, 5000)
    assert external.stat.xattrs == {}
    contents = {n: leaf.content for n, leaf in root.entries.items() if isinstance(leaf, Leaf)}
    assert contents[b"gone"] == CharDevice(0)
    assert contents[b"pipe"] == Fifo()
    assert contents[b"sym"] == Symlink(b"target")


@pytest.mark.parametrize("content", [Unverified(b"ab/cd.file", 9), Sparse(9), Sparse(1 << 50)])
def test_contents_without_digest(content: Unverified | Sparse) -> None:
    root = read_erofs(mkfs_erofs(Directory(Stat(), {b"f": Leaf(Stat(), content)})))
    leaf = root.entries[b"f"]
    assert isinstance(leaf, Leaf)
    assert leaf.content == content


def test_names_like_stubs_are_kept_unless_they_are_stubs() -> None:
    root = Directory(
        Stat(),
        {b"00": Directory(), b"ab": Leaf(Stat(), Fifo()), b"ff": Leaf(Stat(0o644), CharDevice(0))},
    )
    assert sorted(read_erofs(mkfs_erofs(root)).entries) == [b"00", b"ab", b"ff"]


Patch = Callable[[bytearray], None]


def put(offset: int, fmt: str, *values: object) -> Patch:
    return lambda image: struct.pack_into(fmt, image, offset, *values)


def put_in(name: bytes, offset: int, fmt: str, *values: object) -> Patch:
    """Change a field of an inode."""
    return put(position(name) + offset, fmt, *values)


def swap(old: bytes, new: bytes) -> Patch:
    """Change bytes that occur once."""
    assert len(old) == len(new)

    def patch(image: bytearray) -> None:
        assert image.count(old) == 1, old
        image[:] = image.replace(old, new)

    return patch


def nid(name: bytes) -> bytes:
    return struct.pack("<Q", position(name) // 32)


METACOPY = b"overlay.metacopy\x00\x24\x00\x01"
DOT = struct.pack("<QHBx", position(b"dir") // 32, 36, 2)
DOT_DOT = struct.pack("<QHBx", 36, 37, 2)


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (put(0, "<I", 0), "not a composefs header"),
        (put(4, "<I", 2), "composefs header version 2"),
        (put(1024, "<I", 0), "not an EROFS superblock"),
        (put(1032, "<I", 0x80), "features 0x80, which composefs does not use"),
        (put(1036, "<B", 9), r"blocks of 2\^9 bytes"),
        (put(1060, "<I", 99), "99 blocks announced"),
        (put(1104, "<I", 1), r"incompatible features 0x1 \(compression\)"),
        (put(1104, "<I", 8), r"incompatible features 0x8 \(several devices"),
        (put(1108, "<H", 1), "unknown use of the superblock: compression is 1"),
        (put(12, "<I", 3), "composefs version 3"),
        (put(1038, "<H", 0xFFFF), "inode reaches beyond the end"),
        (put(1038, "<H", position(b"pipe") // 32), "the root is no directory"),
        (put_in(b"pipe", 0, "<H", 2), "compressed data"),
        (put_in(b"pipe", 0, "<H", 10), "inode of unknown format"),
        (put_in(b"pipe", 0, "<H", 0x100), "inode of unknown format"),
        (put_in(b"pipe", 2, "<H", 0xFFFF), "xattrs reach beyond the end"),
        (put_in(b"pipe", 4, "<H", 0o110644), "unknown file type 110644"),
        (put_in(b"pipe", 6, "<H", 2), "2 links announced, 1 found"),
        (put_in(b"dir", 6, "<H", 3), "3 links announced, 2 found"),
        (put_in(b"dir", 0, "<H", 8), "chunks where content is expected"),
        (put_in(b"dir", 8, "<I", 0), r"\. is missing or leads elsewhere"),
        (put_in(b"dir", 8, "<I", 11), "does not begin with an entry"),
        (put_in(b"dir", 8, "<I", 1 << 31), "data reaches beyond the end"),
        (put_in(b"sym", 8, "<I", 0), "a link target of 0 bytes"),
        (put_in(b"sym", 8, "<I", 4096), "a link target of 4096 bytes"),
        (swap(b"target", b"tar\0et"), "a link target with a NUL byte"),
        (put_in(b"file", 40, "<I", 10**9), "impossible mtime"),
        (put_in(b"file", 44, "<I", 3), "3 links announced, 2 found"),
        (put_in(b"file", 68, "<B", 9), "shared xattrs reach beyond"),
        (put_in(b"file", 76, "<I", 1 << 30), "shared xattr reaches beyond the end"),
        (put_in(b"gone", 44 + 2, "<H", 9999), "an xattr reaches beyond its inode's xattrs"),
        (put_in(b"gone", 44 + 1, "<B", 9), "an xattr has an impossible name"),
        (put_in(b"gone", 6, "<H", 2), "a hard-linked whiteout"),
        (swap(METACOPY, METACOPY[:-3] + b"\x23\x00\x01"), "holds no fs-verity digest"),
        (swap(METACOPY, METACOPY[:-1] + b"\x02"), "holds no fs-verity digest"),
        (swap(METACOPY, METACOPY[:-2] + b"\x01\x01"), "holds no fs-verity digest"),
        (swap(b"1e1f\0\0\xff\xff\xff\xff", b"1e1f\0\0\0\0\0\0"), "a file has chunks of data"),
        (put_in(b"external", 0, "<H", 0), "content both here and elsewhere"),
        (swap(DOT, DOT_DOT[:8] + DOT[8:]), r"\. is missing or leads elsewhere"),
        (swap(DOT_DOT, DOT[:8] + DOT_DOT[8:]), r"\.\. is missing or leads elsewhere"),
        (swap(nid(b"pipe"), nid(b"dir")), "a directory appears twice"),
        (swap(nid(b"pipe"), nid(b"sym")), "1 links announced, 2 found"),
        (put_in(b"gone", 4, "<H", 0o020644), "a device 0:0 that is no stub"),
        (swap(b"externalf", b"a/ternalf"), "impossible name"),
        (swap(b"externalf", b"zzternalf"), "out of order"),
        (swap(b"pipesym", b"gonesym"), "b'gone' is out of order"),
    ],
)
def test_damage_is_named(patch: Patch, message: str) -> None:
    image = bytearray(mkfs_erofs(tree()))
    patch(image)
    with pytest.raises(InvalidImage, match=message) as caught:
        read_erofs(bytes(image))
    assert "offset 0x" in caught.value.message


def test_content_is_not_multiplied() -> None:
    """Files that all claim the whole data area would make an image of n blocks n*n large."""
    root = Directory(Stat(), {b"%02d" % i: Leaf(Stat(), Inline(b"x" * 4096)) for i in range(50)})
    image = bytearray(mkfs_erofs(root))
    layout = lay_out(root, 1)
    files = [inode for inode in layout.inodes if inode.blocks and not inode.names]
    assert len(files) == 50
    for file in files:
        struct.pack_into("<I", image, file.position + 8, 50 * 4096)
        struct.pack_into("<I", image, file.position + 16, files[0].first_block)
    with pytest.raises(InvalidImage, match="uses bytes that something else uses"):
        read_erofs(bytes(image))


def test_shared_xattrs_may_be_used_by_everything() -> None:
    """They count once, however many inodes use them."""
    label = {b"security.selinux": b"l" * 4000}
    root = Directory(
        Stat(), {b"%03d" % i: Leaf(Stat(xattrs=dict(label)), Fifo()) for i in range(500)}
    )
    again = read_erofs(mkfs_erofs(root))
    assert all(leaf.stat.xattrs == label for leaf in again.entries.values())


def test_nesting_is_limited() -> None:
    root = directory = Directory()
    for _ in range(2046):
        directory.entries[b"d"] = directory = Directory()
    image = mkfs_erofs(root)
    assert sum(1 for _ in read_erofs(image).walk()) == 2047


@pytest.mark.parametrize("size", [0, 31, 1023, 1151, 4096])
def test_short_images(size: int) -> None:
    with pytest.raises(InvalidImage, match="offset 0x"):
        read_erofs(mkfs_erofs(tree())[:size])


def test_huge_images_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bootc.formats.erofs.image.MAX_IMAGE_BYTES", 16383)
    with pytest.raises(InvalidImage, match="more than 1 GiB"):
        read_erofs(mkfs_erofs(Directory()))
