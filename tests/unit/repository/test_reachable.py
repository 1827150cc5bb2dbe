"""What streams and images refer to, and what an image may refer to that makes no sense to us."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs.image import InvalidImage
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.splitstream import SplitstreamError, StreamWriter
from bootc.formats.tree import Directory, External, Leaf, Stat
from bootc.formats.verity import verity_digest
from bootc.repository import reachable
from bootc.repository.gc import UnreadableRoot, collect
from bootc.repository.repository import Repository
from support.stored import object_names


def image_of(*contents: tuple[bytes, External]) -> bytes:
    root = Directory(Stat(mode=0o755))
    deep = root.entries[b"deep"] = Directory(Stat(mode=0o755))
    for name, content in contents:
        deep.entries[name] = Leaf(Stat(mode=0o644), content)
    return mkfs_erofs(root)


def test_objects_of_an_image_are_those_demanded_and_those_looked_for() -> None:
    one, two, three = (Digest(Algorithm.SHA512, bytes([n]) * 64) for n in (1, 2, 3))
    image = image_of(
        (b"a", External(one, 100)), (b"b", External(two, 5)), (b"c", External(one, 100))
    )
    assert reachable.image_objects(image) == {one.raw, two.raw}
    # Where the path says another object than the digest, both stay.
    moved = image.replace(f"/{two.object_path}".encode(), f"/{three.object_path}".encode())
    assert reachable.image_objects(moved) == {one.raw, two.raw, three.raw}
    lost = image.replace(f"/{two.object_path}".encode(), b"/" + b"x" * len(two.object_path))
    assert reachable.image_objects(lost) == {one.raw, two.raw}


def test_images_that_make_no_sense() -> None:
    digest = Digest(Algorithm.SHA512, b"\1" * 64)
    image = image_of((b"a", External(digest, 100)))
    header = struct.pack("<4B", 0, 68, 0, 2)
    bad = image.replace(header + digest.raw, struct.pack("<4B", 0, 68, 0, 9) + digest.raw)
    with pytest.raises(InvalidImage, match="no fs-verity digest"):
        reachable.image_objects(bad)
    for length in (0, 2000, len(image) - 1):
        with pytest.raises(InvalidImage):
            reachable.image_objects(image[:length])
    with pytest.raises(SplitstreamError):
        reachable.stream_needs(b"", Algorithm.SHA512)


#: How to make an image that the kernel may well mount, and that makes no sense to us.
ODD_IMAGES = {
    "name": (b"deep", b"de/p"),
    "metacopy": (struct.pack("<4B", 0, 68, 0, 2), struct.pack("<4B", 0, 68, 0, 9)),
    "version": (struct.pack("<II", 0xD078629A, 1), struct.pack("<II", 0xD078629A, 7)),
    "path": (b"/", b"x"),
}


def odd_image(how: str, *contents: tuple[bytes, External]) -> bytes:
    good = image_of(*contents)
    before, after = ODD_IMAGES[how]
    if how == "path":
        # The digests alone; that no entry can be read makes it odd.
        return good.replace(b"/", b"x").replace(b"deep", b"de/p")
    assert before in good
    return good.replace(before, after)


@pytest.mark.parametrize("how", ODD_IMAGES)
def test_all_that_an_image_of_others_may_need_is_kept(insecure: Repository, how: str) -> None:
    contents = [b"a" * 100, b"b" * 5000]
    digests = [insecure.objects.put(data) for data in contents]
    files = [(b"f%d" % n, External(d, 100)) for n, d in enumerate(digests)]
    data = odd_image(how, *files)
    with pytest.raises(InvalidImage):
        reachable.image_objects(data)
    image = insecure.images.add(data)
    insecure.images.set_ref("keep", image)
    stray = insecure.objects.put(b"stray" * 100)
    insecure.streams.write("stray", StreamWriter(insecure.algorithm, b"anything").finish())
    report = collect(insecure)
    assert object_names(insecure) == {image.hex, *(digest.hex for digest in digests)}
    assert not insecure.objects.exists(stray)
    assert report.streams_pruned == 1
    (warning,) = report.warnings
    assert warning.startswith(f"images/{image}: invalid EROFS image: ")
    assert warning.endswith("; all that it may need is kept")


@given(
    st.sampled_from(Algorithm),
    st.lists(st.binary(min_size=3, max_size=3), min_size=1, max_size=40, unique=True),
)
def test_what_an_image_may_need_is_no_less_than_it_needs(
    algorithm: Algorithm, seeds: list[bytes]
) -> None:
    digests = [verity_digest(seed, algorithm) for seed in seeds]
    names = [seed.hex().encode() for seed in seeds]
    image = image_of(*((n, External(d, 9)) for n, d in zip(names, digests, strict=True)))
    needed = reachable.image_objects(image)
    assert needed == {digest.raw for digest in digests}
    assert reachable.possible_objects(image, algorithm) >= needed


def test_metadata_that_may_be_compressed_tells_nothing(insecure: Repository) -> None:
    content = insecure.objects.put(b"a" * 100)
    data = bytearray(image_of((b"f", External(content, 100))))
    struct.pack_into("<I", data, 1024 + 80, 0x100)
    image = insecure.images.add(bytes(data))
    insecure.images.set_ref("keep", image)
    insecure.objects.put(b"stray")
    with pytest.raises(UnreadableRoot, match=rf"images/{image} is needed .* features 0x100"):
        collect(insecure)
    assert len(object_names(insecure)) == 3
