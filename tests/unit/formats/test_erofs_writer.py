from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

import pytest

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs.inodes import Unrepresentable
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
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
from bootc.formats.verity import verity_digest

ZEROS_4097 = Digest.from_hex("093756e4ea9683329106d4a16982682ed182c14bf076463a9e7f97305cbac743")


def empty() -> Directory:
    return Directory(Stat(0o755))


def simple() -> Directory:
    root = empty()
    contents = {
        b"fifo": Fifo(),
        b"regular-inline": Inline(b"hihi"),
        b"regular-external": External(Digest(Algorithm.SHA256, b"\x5a" * 32), 1234),
        b"chrdev": CharDevice(123),
        b"blkdev": BlockDevice(123),
        b"socket": Socket(),
        b"symlink": Symlink(b"/target"),
    }
    root.entries.update((name, Leaf(Stat(), content)) for name, content in contents.items())
    return root


def example() -> Directory:
    """The worked example of the format's description."""
    early = Stat(0o755, mtime_s=1_700_000_000, mtime_ns=5)

    def stat(mode: int, uid: int = 0) -> Stat:
        return Stat(mode, uid, uid, 1_700_000_000, 5)

    root = Directory(early)
    a = Directory(early.copy())
    root.entries = {
        b"a": a,
        b"hi": Leaf(stat(0o644, 1000), Inline(b"hi\n")),
        b"ln": Leaf(stat(0o777), Symlink(b"hi")),
    }
    big = Stat(0o644, mtime_s=1_700_000_001, xattrs={b"user.foo": b"bar"})
    a.entries = {
        b"big": Leaf(big, External(ZEROS_4097, 4097)),
        b"wh": Leaf(stat(0o644), CharDevice(0)),
    }
    return root


@pytest.mark.parametrize(
    ("tree", "version", "length", "verity"),
    [
        (empty, 0, 16384, "8f589e8f57ecb88823736b0d857ddca1e1068a23e264fad164b28f7038eb3682"),
        (empty, 1, 16384, "14a26c957c84f6eb774b91205476adc13196c7c33b9dd97d08d43725ecb90b63"),
        (simple, 0, 16384, "9f3f5620ee0c54708516467d0d58741e7963047c7106b245d94c298259d0fa01"),
        (simple, 1, 16384, "ad6db6427568a1e4fdc772cbab7b6063f5eb4b33cb62982a740ba9213e5962b5"),
        (empty, 2, 4096, "086b702a519b57d6ef5aea6f8b3f2be24355cd1fb835cd80fb4e3d388b24d5a5"),
        (simple, 2, 4096, "a8fcd41f8b313bede69f462f2af0a38d64b99a6333f5df884ea9ab4037fac722"),
        (example, 2, 4096, "3b8f8bf06ab77a1d9d43508039a94cb1f58fbb9235149d2608b52de9d141de5f"),
        (example, 0, 16384, "3f1ad9e4feeda25b1b3b484d2b3322fbb6c527cedee0e1f587fb1c0a0d979dfc"),
        (example, 1, 16384, "1e8a5d90fed7e4d7200ccf843921c3ed26e7b7be8b2056eeb87c23a9802b4fdc"),
    ],
)
def test_pinned_images(
    tree: Callable[[], Directory], version: int, length: int, verity: str
) -> None:
    image = mkfs_erofs(tree(), version=version)
    assert len(image) == length
    assert verity_digest(image, Algorithm.SHA256).hex == verity


def test_pinned_plain_hash_of_the_example() -> None:
    expected = "17bc4571353e45634caecb6aa8a4abfb62646f7a8766316ea0768b3bdf231d2b"
    assert hashlib.sha256(mkfs_erofs(example())).hexdigest() == expected


def test_version_1_is_the_default() -> None:
    assert mkfs_erofs(example()) == mkfs_erofs(example(), version=1)


def test_other_versions_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="version 3"):
        mkfs_erofs(empty(), version=3)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0x0000, "9a6278d001000000 0000000001000000"),
        (0x0400, "e2e1f5e000000000 060000000c002400"),
        (0x0410, "0601000000000000 00f1536500000000"),
        (0x0420, "0500000004000000 0000000002000000"),
        (0x0480, "00000600ed410300 0010000000000000"),
        (0x0490, "0300000000000000 0000000000000000"),
        (0x04A0, "ffffefff00000000 000000000e040100"),
        (0x18C0, "04001b00ed410200 38000000"),
        (0x2620, "09002800a4810000 0110000000000000"),
        (0x2630, "0100000004010000"),
        (0x2708, "ffffffff"),
        (0x2720, "00000d00a4810100 0000000000000000"),
    ],
)
def test_bytes_of_the_example(offset: int, expected: str) -> None:
    raw = bytes.fromhex(expected)
    assert mkfs_erofs(example())[offset : offset + len(raw)] == raw


def test_sha512_files_have_a_longer_metacopy() -> None:
    root = empty()
    digest = Digest(Algorithm.SHA512, bytes(range(64)))
    root.entries[b"f"] = Leaf(Stat(), External(digest, 100))
    image = mkfs_erofs(root)
    metacopy = b"\x10\x04\x44\x00overlay.metacopy\x00\x44\x00\x02" + digest.raw
    assert metacopy in image
    assert b"overlay.redirect/00/" + digest.hex[2:].encode() in image


def test_acl_is_announced_in_the_header() -> None:
    root = empty()
    assert struct.unpack_from("<I", mkfs_erofs(root), 8) == (0,)
    root.stat.xattrs[b"system.posix_acl_default"] = b"x"
    assert struct.unpack_from("<I", mkfs_erofs(root), 8) == (1,)


def test_a_hard_link_is_numbered_where_a_depth_first_walk_meets_it() -> None:
    root = empty()
    leaf = Leaf(Stat(), Inline(b"x"))
    # Breadth first, /b would come before /a/z.
    root.entries = {b"a": Directory(Stat(), {b"z": leaf}), b"b": leaf}
    image = mkfs_erofs(root)
    other = mkfs_erofs(Directory(Stat(0o755), {b"a": Directory(Stat(), {b"z": leaf})}))
    assert struct.unpack_from("<Q", image, 1040) == struct.unpack_from("<Q", other, 1040)
    # The inode with "x" as tail: nlink 2, number after root, stubs and /a.
    position = image.index(b"\x04\x00\x00\x00\x00\x80\x02\x00")
    assert struct.unpack_from("<I", image, position + 20) == (258,)


def test_times_before_1970_never_are_the_build_time() -> None:
    root = Directory(Stat(mtime_s=7))
    root.entries[b"old"] = Leaf(Stat(mtime_s=-1, mtime_ns=3), Inline(b""))
    image = mkfs_erofs(root)
    assert struct.unpack_from("<QI", image, 1048) == (7, 0)
    old = read_erofs(image).entries[b"old"]
    assert (old.stat.mtime_s, old.stat.mtime_ns) == (-1, 3)


def test_marks_the_tree_has_already_are_not_doubled() -> None:
    root = empty()
    root.stat.xattrs[b"user.overlay.whiteouts"] = b"mine"
    root.entries[b"gone"] = Leaf(Stat(xattrs={b"user.overlay.whiteout": b"mine"}), CharDevice(0))
    plain = empty()
    plain.entries[b"gone"] = Leaf(Stat(), CharDevice(0))
    assert mkfs_erofs(root) == mkfs_erofs(plain)


def test_overlay_names_of_the_tree_are_the_users() -> None:
    root = empty()
    own = {b"trusted.overlay.opaque": b"mine", b"user.overlay.opaque": b"mine"}
    root.entries[b"d"] = Directory(Stat(xattrs=dict(own)))
    image = mkfs_erofs(root)
    assert b"overlay.overlay.opaquemine" in image
    assert read_erofs(image).entries[b"d"].stat.xattrs == own


def nested(depth: int) -> Directory:
    root = directory = empty()
    for _ in range(depth):
        directory.entries[b"d"] = directory = Directory()
    return root


def cycle() -> Directory:
    root = empty()
    root.entries[b"d"] = Directory(Stat(), {b"root": root})
    return root


def with_leaf(content: object, **stat: object) -> Directory:
    leaf = Leaf(Stat(**stat), content)  # type: ignore[arg-type]
    return Directory(Stat(), {b"etc": Directory(Stat(), {b"f": leaf})})


def hard_linked_whiteout() -> Directory:
    leaf = Leaf(Stat(), CharDevice(0))
    return Directory(Stat(), {b"a": leaf, b"b": leaf})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (Directory(Stat(), {b"": Directory()}), "/: impossible file name"),
        (Directory(Stat(), {b".": Directory()}), "impossible file name"),
        (Directory(Stat(), {b"..": Directory()}), "impossible file name"),
        (Directory(Stat(), {b"a/b": Directory()}), "impossible file name a/b"),
        (Directory(Stat(), {b"a\0": Directory()}), "impossible file name"),
        (Directory(Stat(), {b"n" * 256: Directory()}), "impossible file name nnn"),
        (nested(2048), "nested deeper than 2048"),
        (cycle(), "/d/root: the same directory appears twice"),
        (hard_linked_whiteout(), "/b: a whiteout"),
        (with_leaf(Inline(b""), uid=1 << 32), "/etc/f: owner 4294967296:0 does not fit"),
        (with_leaf(Inline(b""), gid=-1), "/etc/f: owner 0:-1 does not fit"),
        (with_leaf(Inline(b""), mtime_s=1 << 63), "/etc/f: mtime"),
        (with_leaf(Inline(b""), mtime_ns=10**9), "/etc/f: mtime"),
        (with_leaf(CharDevice(1 << 32)), "/etc/f: device number"),
        (with_leaf(BlockDevice(-1)), "/etc/f: device number"),
        (with_leaf(Symlink(b"")), "/etc/f: impossible link target of 0 bytes"),
        (with_leaf(Symlink(b"x" * 4096)), "/etc/f: impossible link target of 4096 bytes"),
        (with_leaf(Symlink(b"a\0b")), "/etc/f: impossible link target"),
        (with_leaf(Sparse(1025 << 43)), "/etc/f: file size"),
        (with_leaf(Sparse(-1)), "/etc/f: file size"),
        (with_leaf(Inline(b""), xattrs={b"": b""}), "/etc/f: impossible xattr name"),
        (with_leaf(Inline(b""), xattrs={b"a\0": b""}), "/etc/f: impossible xattr name"),
        (with_leaf(Inline(b""), xattrs={b"u" * 256: b""}), "/etc/f: impossible xattr name"),
        (with_leaf(Inline(b""), xattrs={b"user.a": bytes(65536)}), "user.a has a value of 65536"),
        (
            with_leaf(Inline(b""), xattrs={b"user.%d" % i: b"" for i in range(256)}),
            "/etc/f: 256 xattrs",
        ),
        (
            with_leaf(Inline(b""), xattrs={b"user.%d" % i: bytes(65000) for i in range(5)}),
            "/etc/f: 5 xattrs",
        ),
    ],
)
def test_what_has_no_room_is_named(tree: Directory, message: str) -> None:
    with pytest.raises(Unrepresentable, match=message):
        mkfs_erofs(tree)


def test_images_that_readers_refuse_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bootc.formats.erofs.layout.MAX_IMAGE_BYTES", 16384)
    assert len(mkfs_erofs(empty())) == 16384
    root = empty()
    root.entries[b"big"] = Leaf(Stat(), Inline(bytes(4096)))
    with pytest.raises(Unrepresentable, match="20480 bytes, more than 1 GiB"):
        mkfs_erofs(root)


@pytest.mark.parametrize(
    "tree",
    [
        with_leaf(Symlink(b"x" * 4095)),
        with_leaf(Sparse(1024 << 43)),
        with_leaf(Unverified(b"ab/cd.file", 0)),
        with_leaf(External(ZEROS_4097, 0)),
        with_leaf(CharDevice(0xFFFFFFFF)),
        with_leaf(Inline(b""), uid=0xFFFFFFFF, gid=0xFFFFFFFF),
        with_leaf(Inline(b""), xattrs={b"u" * 255: bytes(65535)}),
        with_leaf(Inline(b""), xattrs={b"user.%d" % i: b"" for i in range(255)}),
        with_leaf(Inline(b""), xattrs={b"user.%d" % i: bytes(65000) for i in range(4)}),
        nested(2046),
    ],
)
def test_the_largest_of_everything_has_room(tree: Directory) -> None:
    image = mkfs_erofs(tree)
    assert mkfs_erofs(read_erofs(image)) == image
