"""Bytes of images, what they refer to, and the content of files."""

from __future__ import annotations

import errno
from functools import partial

import pytest

from bootc.formats.digest import Algorithm
from bootc.formats.erofs.image import InvalidImage
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory, External, Inline, Leaf, Stat, Symlink
from bootc.formats.verity import verity_digest
from bootc.repository.content import objects_of, read_content
from bootc.repository.objects import ObjectCorrupt
from bootc.repository.repository import Repository

DATA = b"data" * 5000
DIGEST = verity_digest(DATA, Algorithm.SHA512)
ONE, TWO = (verity_digest(data, Algorithm.SHA512) for data in (b"1" * 100, b"2" * 100))


def test_objects_of_an_image(repository: Repository) -> None:
    tree = Directory(
        Stat(0o755),
        {
            b"one": Leaf(Stat(0o644), External(ONE, 100)),
            b"link": Leaf(Stat(0o777), Symlink(b"one")),
            b"small": Leaf(Stat(0o644), Inline(b"inline")),
            b"below": Directory(
                Stat(0o755),
                {
                    b"one": Leaf(Stat(0o600), External(ONE, 100)),
                    b"two": Leaf(Stat(0o644), External(TWO, 100)),
                },
            ),
        },
    )
    image = repository.images.add(mkfs_erofs(tree))
    assert repository.images.exists(image)
    assert objects_of(repository.objects, image) == {ONE, TWO}


def test_what_is_no_image_is_named(repository: Repository) -> None:
    digest = repository.images.add(b"not EROFS")
    with pytest.raises(InvalidImage) as caught:
        objects_of(repository.objects, digest)
    assert f"Reading image {digest}" in caught.value.__notes__


def test_an_image_that_is_missing(repository: Repository) -> None:
    assert not repository.images.exists(ONE)
    with pytest.raises(FileNotFoundError):
        objects_of(repository.objects, ONE)


def test_read_content(repository: Repository) -> None:
    repository.objects.put(DATA)
    read = partial(read_content, repository.objects)
    assert read(Inline(b"small")) == b"small"
    assert read(External(DIGEST, len(DATA)), limit=len(DATA)) == DATA
    for content in (Inline(b"small"), External(DIGEST, len(DATA))):
        with pytest.raises(OSError, match="larger than 4 bytes") as caught:
            read(content, limit=4)
        assert caught.value.errno == errno.EFBIG


def test_an_image_that_lies_about_a_size_is_caught(repository: Repository) -> None:
    repository.objects.put(DATA)
    with pytest.raises(ObjectCorrupt, match="has 20000 bytes, its image says 3"):
        read_content(repository.objects, External(DIGEST, 3))
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_content(repository.objects, External(DIGEST, 3), limit=10)
