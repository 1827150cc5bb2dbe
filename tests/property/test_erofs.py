from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.formats.digest import Algorithm
from bootc.formats.erofs.debug import describe_image
from bootc.formats.erofs.inodes import Unrepresentable
from bootc.formats.erofs.reader import InvalidImage, read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.libcomposefs import dumpfile as c_dumpfile
from bootc.formats.libcomposefs import erofs as c_erofs
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
@given(st.sampled_from(Algorithm).flatmap(lambda a: trees(a, version_2=True)))
def test_version_2_holds_all_but_nanoseconds(tree: Directory) -> None:
    before = text_of(tree)
    image = mkfs_erofs(tree, version=2)
    again = read_erofs(image)
    assert text_of(again) == before
    assert mkfs_erofs(again, version=2) == image


@settings(deadline=None, max_examples=60)
@given(tree=trees(), version=st.sampled_from([0, 1]))
def test_the_c_dialect_keeps_what_it_reads(tree: Directory, version: int) -> None:
    image = mkfs_erofs(tree, version=version)
    again = c_erofs.read_erofs(image)
    assert c_erofs.mkfs_erofs(again, version=version) == image
    parsed = c_dumpfile.parse_dumpfile(list(c_dumpfile.write_dumpfile(again)))
    assert c_erofs.mkfs_erofs(parsed, version=version) == image


@settings(deadline=None, max_examples=60)
@given(tree=trees(version_2=True), version=st.sampled_from([0, 1, 2]))
def test_a_description_covers_the_image(tree: Directory, version: int) -> None:
    lines = list(describe_image(mkfs_erofs(tree, version=version)))
    odd = [x for x in lines if "damage" in x or "overlap:" in x or "not zero" in x]
    # The index of a chunk table in a block of its own is not linked: nobody can find it.
    assert [x for x in odd if "4096 of 4096" not in x] == []
    offsets = [int(line[:10], 16) for line in lines if line.startswith("0x")]
    assert offsets == sorted(offsets)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    version = draw(st.sampled_from([0, 1, 2]))
    image = bytearray(mkfs_erofs(draw(trees(version_2=True)), version=version))
    # Mostly where metadata is: the space between the stubs and the data is small.
    for _ in range(draw(st.integers(1, 4))):
        offset = draw(st.one_of(st.integers(0, len(image) - 1), st.integers(1024, 1500)))
        image[offset] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        image[:32] = bytes(32)  # as mkfs.erofs writes it
    return bytes(image)


@settings(deadline=None, max_examples=60)
@given(damaged())
def test_damaged_images_are_read_or_refused(image: bytes) -> None:
    with contextlib.suppress(InvalidImage, Unrepresentable):
        mkfs_erofs(read_erofs(image))
    with contextlib.suppress(InvalidImage, Unrepresentable):
        c_erofs.mkfs_erofs(c_erofs.read_erofs(image))


@settings(deadline=None, max_examples=60)
@given(damaged())
def test_damaged_images_are_described(image: bytes) -> None:
    assert all(line.isprintable() for line in describe_image(image))


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
    assert any("damage" in line for line in describe_image(noise))
