from __future__ import annotations

import struct

import pytest

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs.debug import describe_image
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory, External, Inline, Leaf, Sparse, Stat, Symlink


def tree() -> Directory:
    label = {b"security.selinux": b"label"}
    digest = Digest(Algorithm.SHA256, bytes(32))
    return Directory(
        Stat(0o755, mtime_s=9, xattrs=dict(label)),
        {
            b"big": Leaf(Stat(0o644, 1, 2, 10, 4, {b"user.k": b"v" * 100}), External(digest, 5000)),
            b"data": Leaf(Stat(xattrs=dict(label)), Inline(b"d" * 300)),
            b"sym": Leaf(Stat(0o777), Symlink(b"target")),
        },
    )


def test_version_2() -> None:
    lines = list(describe_image(mkfs_erofs(tree(), version=2)))
    assert lines[:8] == [
        "0x00000000  composefs header: version 2, flags 0x0",
        "0x00000020  unused: 992 zeros",
        "0x00000400  superblock",
        "            magic 0xe0f5e1e2",
        "            feature_compat 0x6",
        "            block_bits 12",
        "            root_nid 36",
        "            inodes 4",
    ]
    assert lines[9:20] == [
        "0x00000480  inode 36 '/': directory",
        "            extended, flat inline, u 0x0, number 36",
        "            mode 40755, owner 0:0, 2 links, 73 bytes, mtime 9.000000000",
        "            shared xattr 'security.selinux'='label'",
        "0x000004d0  5 entries of '/'",
        "            36 directory '.'",
        "            36 directory '..'",
        "            41 regular file 'big'",
        "            52 regular file 'data'",
        "            64 symlink 'sym'",
        "0x00000519  unused: 7 zeros",
    ]
    assert "            xattr 'user.k'='" + "v" * 72 + "…' (100 bytes)" in lines
    assert "0x00000668  4 bytes of chunk indexes of '/big'" in lines
    assert "0x000006d0  content of '/data': '" + "d" * 72 + "…' (300 bytes)" in lines
    assert "0x00000840  content of '/sym': 'target'" in lines
    assert lines[-3] == "0x00000860  shared xattr 536: 'security.selinux'='label'"
    assert lines[-1] == "0x00001000  end"


def test_version_1() -> None:
    lines = list(describe_image(mkfs_erofs(tree())))
    assert "0x00000500  inode 40 '/00': character device" in lines
    assert sum("shared xattr 'security.selinux'='label'" in line for line in lines) == 258
    assert any(line.endswith("261 entries of '/'") for line in lines)
    assert not any("damage" in line or "overlap" in line or "not zero" in line for line in lines)


def test_access_control_lists() -> None:
    root = Directory(Stat(xattrs={b"system.posix_acl_default": b"x"}))
    lines = describe_image(mkfs_erofs(root))
    assert next(lines) == "0x00000000  composefs header: version 1, flags 0x1, has ACLs"


def test_offsets_only_grow() -> None:
    for version in (0, 1, 2):
        lines = describe_image(mkfs_erofs(tree(), version=version))
        offsets = [int(line[:10], 16) for line in lines if line.startswith("0x")]
        assert offsets == sorted(offsets)


@pytest.mark.parametrize(
    ("offset", "fmt", "value", "message"),
    [
        (0, "<I", 1, "0x00000000  damage: not a composefs header"),
        (4, "<I", 2, "0x00000004  damage: composefs header version 2"),
        (12, "<I", 7, "0x0000000c  damage: composefs version 7"),
        (1024, "<I", 1, "0x00000400  damage: not an EROFS superblock"),
        (1036, "<B", 9, "0x0000040c  damage: blocks of 2^9 bytes"),
        (1038, "<H", 60000, "0x001d4c00  damage: inode reaches beyond the end"),
        (0x4D0 + 8, "<H", 7, "0x000004d0  damage: a directory block does not begin with an entry"),
        (0x4D0 + 24, "<Q", 1 << 40, "0x200000000000  damage: inode reaches beyond the end"),
        (0x520, "<H", 3, "0x00000520  damage: compressed data"),
        (0x520 + 64 + 4, "<B", 200, "0x00000560  damage: shared xattrs reach beyond"),
        (0x680 + 8, "<Q", 1 << 40, "damage: data reaches beyond the end"),
        (0x519, "<B", 7, "0x00000519  unused: 1 of 7 bytes are not zero"),
    ],
)
def test_damage_is_shown_where_it_is(offset: int, fmt: str, value: int, message: str) -> None:
    image = bytearray(mkfs_erofs(tree(), version=2))
    struct.pack_into(fmt, image, offset, value)
    lines = list(describe_image(bytes(image)))
    assert any(line.find(message) in (0, 12) for line in lines), lines


def test_what_is_not_damaged_is_still_shown() -> None:
    image = bytearray(mkfs_erofs(tree(), version=2))
    struct.pack_into("<H", image, 0x520, 3)
    lines = list(describe_image(bytes(image)))
    assert "0x00000840  content of '/sym': 'target'" in lines


def test_overlaps() -> None:
    image = bytearray(mkfs_erofs(tree(), version=2))
    struct.pack_into("<Q", image, 0x680 + 8, 500)
    lines = list(describe_image(bytes(image)))
    at = lines.index("0x00000800  inode 64 '/sym': symlink")
    assert lines[at - 1] == "0x00000800  overlap: this is part of what is above, too"
    assert sum("overlap" in line for line in lines) == 3


@pytest.mark.parametrize("size", [0, 1, 1151, 1152, 1200, 4095])
def test_short_images(size: int) -> None:
    lines = list(describe_image(mkfs_erofs(tree(), version=2)[:size]))
    assert any("damage: " in line for line in lines)


def test_a_chunk_table_in_a_block_of_its_own_is_not_shown() -> None:
    root = Directory(Stat(), {b"f": Leaf(Stat(xattrs={b"user.x": b""}), Sparse(1024 << 43))})
    lines = list(describe_image(mkfs_erofs(root)))
    assert not any("chunk indexes" in line for line in lines)


def test_the_walk_ends_however_directories_are_tied() -> None:
    image = bytearray(mkfs_erofs(tree(), version=2))
    at = image.index(struct.pack("<Q", 64))
    struct.pack_into("<Q", image, at, 36)
    assert sum(" inode 36 " in line for line in describe_image(bytes(image))) == 1
