"""Images that parse and still cannot be what a repository holds."""

from __future__ import annotations

import struct

import pytest

from bootc.formats.erofs.image import InvalidImage
from bootc.formats.erofs.structs import STUB_NAMES
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import CharDevice, Directory, Leaf, Stat, Symlink
from bootc.repository.imagecheck import check_image


def tree(count: int = 1) -> Directory:
    links: dict[bytes, Leaf | Directory] = {
        b"link%03d" % number: Leaf(Stat(0o777), Symlink(b"t" * 100)) for number in range(count)
    }
    return Directory(Stat(0o755), links)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_what_is_written_is_right(version: int) -> None:
    root = tree(100)
    root.entries[b"dev"] = Directory(Stat(0o755), {b"gone": Leaf(Stat(0), CharDevice(0))})
    check_image(mkfs_erofs(root, version=version))


def test_stubs_are_missing() -> None:
    data = bytearray(mkfs_erofs(tree(), version=2))
    assert STUB_NAMES[0] not in tree().entries
    struct.pack_into("<I", data, 12, 1)
    with pytest.raises(InvalidImage, match="the root has no stub 00"):
        check_image(bytes(data))


def test_a_whiteout_in_the_escaped_form() -> None:
    root = tree()
    root.entries[b"gone"] = Leaf(Stat(0), CharDevice(0))
    data = bytearray(mkfs_erofs(root, version=1))
    struct.pack_into("<I", data, 12, 2)
    with pytest.raises(InvalidImage, match="escaped whiteout"):
        check_image(bytes(data))


def test_an_image_of_another_program() -> None:
    data = bytearray(mkfs_erofs(tree()))
    data[:32] = bytes(32)
    with pytest.raises(InvalidImage, match="no composefs header"):
        check_image(bytes(data))


def test_a_symlink_across_blocks() -> None:
    # Version 2 does not care; its images are for newer kernels.
    root = tree(100)
    root.entries.update((name, Leaf(Stat(0), CharDevice(0))) for name in STUB_NAMES)
    data = bytearray(mkfs_erofs(root, version=2))
    check_image(bytes(data))
    struct.pack_into("<I", data, 12, 1)
    with pytest.raises(InvalidImage, match="a symlink across two blocks"):
        check_image(bytes(data))
