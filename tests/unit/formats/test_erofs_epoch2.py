"""Version 2: the writer's frozen oddities, and reading it back.

Digests are those of composefs-rs, or of an independent writer that agreed with it.
"""

from __future__ import annotations

import struct

import pytest

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.dumpfile import parse_dumpfile
from bootc.formats.erofs import epoch2
from bootc.formats.erofs.inodes import Unrepresentable
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import (
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Redirected,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)
from bootc.formats.verity import verity_digest

ROOT = "/ 0 40755 2 0 0 0 0.0 - - -"
DIGEST = Digest(Algorithm.SHA256, b"\x5a" * 32)


def image_of(*lines: str) -> bytes:
    return mkfs_erofs(parse_dumpfile([x.encode() for x in (ROOT, *lines)]), version=2)


LINKED = [
    "/a 0 40755 2 0 0 0 100.0 - - -",
    "/a/f 5 100644 2 0 0 0 100.0 - hello - security.selinux=x\\x00 user.k=v",
    "/a/l 5 @120000 - - - - 0.0 /a/f - -",
    "/b 7 120777 1 0 0 0 100.0 /target - - security.selinux=x\\x00",
]
CROWD = [f"/d{i:04} 0 100644 1 0 0 0 0.0 - - -" for i in range(600)]
EXTERNAL = [f"/x 100000 100644 1 0 0 0 5.0 {DIGEST.object_path} - {DIGEST.hex}"]
WHITEOUT = [
    "/o 0 40755 2 0 0 0 0.0 - - - trusted.overlay.opaque=y",
    "/o/wh 0 20000 1 0 0 0 0.0 - - -",
]
MANY = [f"/file_{i:03} 0 100644 1 0 0 0 0.0 - content\\x20of\\x20file\\x20{i} -" for i in range(25)]


@pytest.mark.parametrize(
    ("lines", "verity"),
    [
        (LINKED, "f60d85cf4ae71fd4e96cc6af7a14914a58d1fe8f20916f22236b7b3b800bc889"),
        (CROWD, "8242c6d35ab2ea5c98e72b55a6025fd224103555570137dd45843414d5799a2e"),
        (EXTERNAL, "1b9b5516608e4b61d1bbd0d016acfa2a30f9915d759ff90368bf2847e2214294"),
        (WHITEOUT, "08ab2ce070767b89fdb15eab13ca7a6f89d6772eca39742b1465aaf3de3d8715"),
        (MANY, "c2e444ed7ee0afd4e74a9a50205e394305369753a589e4ec763a44af44094542"),
    ],
    ids=["links and shared xattrs", "directory blocks", "external", "whiteout", "over a block"],
)
def test_pinned_images(lines: list[str], verity: str) -> None:
    assert verity_digest(image_of(*lines), Algorithm.SHA256).hex == verity


def test_a_long_tail_is_moved_as_composefs_rs_moves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch2, "MAX_INLINE_BYTES", 4000)
    content = "\\xab" * 4000
    image = image_of(f"/large_inline.bin 0 100644 1 0 0 0 0.0 - {content} -")
    expected = "add9674179ee5858a6e7029b9d759c5d3e10ecf2835de90287ab402d6fd5e06f"
    assert verity_digest(image, Algorithm.SHA256).hex == expected
    assert read_erofs(image).entries[b"large_inline.bin"].content == Inline(b"\xab" * 4000)  # type: ignore[union-attr]


def test_an_oci_image_in_both_layouts() -> None:
    """The digests that composefs-rs's own tests expect of a small image."""
    lines = [
        "/ 0 40755 3 0 0 0 1234567890.0 - - -",
        "/hello-link.txt 22 100644 2 0 0 0 1234567890.0 - hello\\x20from\\x20test\\x20layer\\n -",
        "/hello.txt 0 @120000 - - - - 0.0 /hello-link.txt - -",
        "/usr 0 40755 2 0 0 0 1234567890.0 - - -",
    ]
    tree = parse_dumpfile([line.encode() for line in lines])
    digests = [verity_digest(mkfs_erofs(tree, version=v), Algorithm.SHA512).hex for v in (1, 2)]
    assert digests == [
        "d06f1f6a73f62ed48e05ce9442ff045cdf2a9f5ba1ec623795de3d6177a253d9"
        "1076459795d94f55d8c3d71dab458bb3fc0071255a50c0a4896d86ffdc870b9a",
        "f7684c21050615c02cec250e0c7d4118fb0ff6340af5039e06f2f372a7614fff"
        "25dfd38cf7f28ad67d8b86e86371b7deafa9ae4bf543630322aee6196417de92",
    ]


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0x0000, "9a6278d001000000 0000000002000000"),
        (0x0410, "0600000000000000 0000000000000000"),
        (0x0420, "0000000001000000 0000000000000000"),
        (0x0480, "05000000ed410000 4400000000000000"),
        (0x0490, "0000000024000000"),
        (0x04A0, "00f1536500000000 0000000003000000"),
        (0x0688, "ffffffff"),
        (0x06A0, "01000000a4210000"),
    ],
)
def test_bytes_of_the_worked_example(offset: int, expected: str) -> None:
    hex_digest = "093756e4ea9683329106d4a16982682ed182c14bf076463a9e7f97305cbac743"
    lines = [
        "/ 0 40755 3 0 0 0 1700000000.5 - - -",
        "/a 0 40755 2 0 0 0 1700000000.5 - - -",
        f"/a/big 4097 100644 1 0 0 0 1700000001.0 09/{hex_digest[2:]} - {hex_digest} user.foo=bar",
        "/a/wh 0 20644 1 0 0 0 1700000000.5 - - -",
        "/hi 3 100644 1 1000 1000 0 1700000000.5 - hi\\n -",
        "/ln 2 120777 1 0 0 0 1700000000.5 hi - -",
    ]
    image = mkfs_erofs(parse_dumpfile([line.encode() for line in lines]), version=2)
    raw = bytes.fromhex(expected)
    assert image[offset : offset + len(raw)] == raw


def leaf_of(content: Content, **stat: object) -> Directory:
    return Directory(Stat(), {b"f": Leaf(Stat(**stat), content)})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content",
    [
        Inline(b""),
        Inline(b"x" * 512),
        Symlink(b"t" * 1024),
        External(DIGEST, 1 << 50),
        External(Digest(Algorithm.SHA512, b"\xa5" * 64), 65),
        Redirected(DIGEST, 5, b""),
        Redirected(DIGEST, 5, b"else/where"),
        Unverified(b"ab/cd", 9),
        Sparse(9),
        CharDevice(0),
        CharDevice(0x103),
        Fifo(),
    ],
)
def test_contents_come_back(content: Content) -> None:
    image = mkfs_erofs(leaf_of(content), version=2)
    leaf = read_erofs(image).entries[b"f"]
    assert isinstance(leaf, Leaf)
    assert leaf.content == content
    assert leaf.stat == Stat()


def test_nanoseconds_are_lost_and_times_before_1970_are_not() -> None:
    image = mkfs_erofs(leaf_of(Fifo(), mtime_s=-3, mtime_ns=7), version=2)
    assert read_erofs(image).entries[b"f"].stat == Stat(mtime_s=-3)


def test_names_that_epoch_1_gives_a_meaning_have_none() -> None:
    """Stubs, marks of whiteouts and the prefix ``lustre.``."""
    own = {
        b"trusted.overlay.opaque": b"x",
        b"trusted.overlay.whiteout": b"",
        b"user.overlay.whiteout": b"",
        b"lustre.lov": b"1",
    }
    file = Leaf(Stat(xattrs=dict(own)), Inline(b""))
    root = Directory(Stat(xattrs=dict(own)), {b"00": Leaf(Stat(0o644), CharDevice(0)), b"f": file})
    image = mkfs_erofs(root, version=2)
    assert b"\x03\x05\x01\x00lov1" in image
    again = read_erofs(image)
    assert again.stat.xattrs == own
    assert again.entries[b"f"].stat.xattrs == own
    assert again.entries[b"00"].content == CharDevice(0)  # type: ignore[union-attr]
    assert sorted(again.entries) == [b"00", b"f"]


def test_a_whiteout_may_be_a_hard_link() -> None:
    gone = Leaf(Stat(), CharDevice(0))
    image = mkfs_erofs(Directory(Stat(), {b"a": gone, b"b": gone}), version=2)
    again = read_erofs(image)
    assert again.entries[b"a"] is again.entries[b"b"]


def test_an_access_control_list_is_not_announced() -> None:
    root = Directory(Stat(xattrs={b"system.posix_acl_access": b"x"}))
    assert struct.unpack_from("<I", mkfs_erofs(root, version=2), 8) == (0,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Inline(b"x" * 513), "/f: content of 513 bytes is more than version 2 holds"),
        (Symlink(b"x" * 1025), "/f: impossible link target of 1025 bytes"),
        (Sparse(1 << 54), "/f: file size"),
    ],
)
def test_what_has_no_room_is_named(content: Content, message: str) -> None:
    with pytest.raises(Unrepresentable, match=message):
        mkfs_erofs(leaf_of(content), version=2)
