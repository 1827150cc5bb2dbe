from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.formats.digest import Algorithm
from bootc.formats.erofs.inodes import Unrepresentable
from bootc.formats.erofs.reader import InvalidImage, read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory
from support.trees import text_of, trees


@settings(deadline=None, max_examples=60)
@given(
    tree=st.sampled_from(Algorithm).flatmap(trees),
    version=st.sampled_from([0, 1]),
)
def test_an_image_holds_the_whole_tree(tree: Directory, version: int) -> None:
    before = text_of(tree)
    image = mkfs_erofs(tree, version=version)
    again = read_erofs(image)
    assert text_of(again) == before
    assert mkfs_erofs(again, version=version) == image
    assert text_of(tree) == before, "writing changed the tree"


@settings(deadline=None, max_examples=60)
@given(tree=trees(), data=st.data())
def test_damaged_images_are_read_or_refused(tree: Directory, data: st.DataObject) -> None:
    image = bytearray(mkfs_erofs(tree))
    # Mostly where metadata is: the space between the stubs and the data is small.
    for _ in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.one_of(st.integers(0, len(image) - 1), st.integers(1024, 1500)))
        image[offset] = data.draw(st.integers(0, 255))
    with contextlib.suppress(InvalidImage, Unrepresentable):
        mkfs_erofs(read_erofs(bytes(image)))


@settings(deadline=None, max_examples=60)
@given(tree=trees(), data=st.data())
def test_truncated_images_are_refused(tree: Directory, data: st.DataObject) -> None:
    image = mkfs_erofs(tree)
    length = data.draw(st.integers(0, len(image) - 1))
    with pytest.raises(InvalidImage, match=r"offset 0x"):
        read_erofs(image[:length])


@given(st.binary(max_size=2000))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(InvalidImage, match=r"offset 0x"):
        read_erofs(noise)
