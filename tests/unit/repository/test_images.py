"""Images and their names."""

from __future__ import annotations

import os

import pytest

from bootc.formats.digest import Algorithm
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.repository.links import BrokenReference
from bootc.repository.mounting import ImageNotFound
from bootc.repository.repository import Repository

ONE, TWO = (verity_digest(data, Algorithm.SHA512) for data in (b"1" * 100, b"2" * 100))


def test_names_of_images(repository: Repository) -> None:
    images = repository.images
    one, two = images.add(b"one"), images.add(b"two")
    for name in ("os", "a/b"):
        images.set_ref(name, one)
    assert repository.dir.readlink("images/refs/a/b") == f"../../{one}"
    assert os.stat(f"{repository.dir.path}/images/refs/a/b").st_size == 3
    assert images.refs() == {"a/b": one, "os": one}
    assert images.refs("a") == {"a/b": one}
    for name in (one.hex, "os", "refs/os", "a/b", "refs/a/b"):
        assert images.resolve(name) == one
    images.set_ref("os", two)
    assert images.resolve("os") == two


def test_a_name_like_a_digest(repository: Repository) -> None:
    one, two = repository.images.add(b"one"), repository.images.add(b"two")
    repository.images.set_ref(one.hex, two)
    assert repository.images.resolve(one.hex) == one
    assert repository.images.resolve(f"refs/{one}") == two


@pytest.mark.parametrize(
    "name", ["", "os", "a", "a/b", "a/d/e", "a/b/c", "refs", "../x", "x\0", "x" * 300, ONE.hex]
)
def test_names_of_no_image(repository: Repository, name: str) -> None:
    repository.images.set_ref("a/d", ONE)
    with pytest.raises(ImageNotFound, match="has no image"):
        repository.images.resolve(name)


@pytest.mark.parametrize("name", ["", "../x", "a//b", "/x", "a/"])
def test_names_that_no_image_can_have(repository: Repository, name: str) -> None:
    with pytest.raises(ValueError, match="cannot name a reference"):
        repository.images.set_ref(name, ONE)


def test_a_name_of_what_is_no_image(repository: Repository) -> None:
    repository.images.set_ref("good", ONE)
    repository.dir.symlink("../abc", "images/refs/bad")
    with pytest.raises(BrokenReference, match=r"images/refs/bad links to 'abc', which is no image"):
        repository.images.resolve("bad")
    with pytest.raises(BrokenReference):
        repository.images.refs()


def test_no_names_where_nothing_can_be_written(insecure: Repository, parent: Dir) -> None:
    with (
        Repository.open(parent, require_verity=False) as reading,
        pytest.raises(OSError, match="open for reading only"),
    ):
        reading.images.set_ref("os", ONE)
    assert insecure.images.refs() == {}
