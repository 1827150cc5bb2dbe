"""Images and what they refer to."""

from __future__ import annotations

import pytest

from bootc.formats.digest import Algorithm
from bootc.formats.erofs.image import InvalidImage
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory, External, Inline, Leaf, Stat, Symlink
from bootc.formats.verity import verity_digest
from bootc.repository.repository import Repository

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
    assert repository.images.objects_of(image) == {ONE, TWO}


def test_what_is_no_image_is_named(repository: Repository) -> None:
    digest = repository.images.add(b"not EROFS")
    with pytest.raises(InvalidImage) as caught:
        repository.images.objects_of(digest)
    assert f"Reading image {digest}" in caught.value.__notes__


def test_an_image_that_is_missing(repository: Repository) -> None:
    assert not repository.images.exists(ONE)
    with pytest.raises(FileNotFoundError):
        repository.images.objects_of(ONE)
