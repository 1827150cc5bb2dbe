"""A pull makes no image that it made before, unless there is a doubt."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.formats.digest import Digest, DigestMismatch, OciDigest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory
from bootc.oci import pull as pulling
from bootc.oci.documents import write_documents
from bootc.oci.layoutdir import LayoutSource
from bootc.oci.made_images import images_made
from bootc.oci.pull import Pulled, pull
from bootc.oci.stored import find_image
from bootc.oci.trees import config_tree
from bootc.oci.unpack import split_layer
from bootc.repository import layout
from bootc.repository.repository import Repository
from support.layers import DIFF_IDS, FLIPPED, sound


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The versions of the images that were made."""
    versions = []

    def counting(root: Directory, *, version: int) -> bytes:
        versions.append(version)
        return mkfs_erofs(root, version=version)

    monkeypatch.setattr(pulling, "mkfs_erofs", counting)
    return versions


def test_a_second_pull_makes_no_image(
    repository: Repository, source: LayoutSource, made: list[int]
) -> None:
    first = pull(repository, source)
    assert made == [1, 1]
    second = pull(repository, source)
    assert made == [1, 1]
    assert second.image_id == first.image_id
    assert mkfs_erofs(second.root) == mkfs_erofs(first.root)
    # The plain image is there, too; those of another version are not.
    pull(repository, source, bootable=False)
    assert made == [1, 1]
    other = pull(repository, source, erofs_formats=(2,))
    assert made == [1, 1, 2, 2]
    assert pull(repository, source, erofs_formats=(2, 1)).image_id == other.image_id
    assert made == [1, 1, 2, 2]


def remove_object(repository: Repository, image: Digest) -> None:
    os.unlink(repository.objects.path_of(image))


def damage_object(repository: Repository, image: Digest) -> None:
    path = Path(repository.objects.path_of(image))
    path.write_bytes(bytes(path.stat().st_size))


def remove_link(repository: Repository, image: Digest) -> None:
    Path(repository.dir.path, layout.image_path(image.hex)).unlink()


def link_elsewhere(repository: Repository, image: Digest) -> None:
    remove_link(repository, image)
    Path(repository.dir.path, layout.image_path(image.hex)).symlink_to("../objects/ab/cd")


@pytest.mark.parametrize(
    "fault", [remove_object, damage_object, remove_link, link_elsewhere], ids=lambda f: f.__name__
)
def test_an_image_that_is_not_whole_is_made_again(
    repository: Repository,
    source: LayoutSource,
    made: list[int],
    fault: Callable[[Repository, Digest], None],
) -> None:
    first = pull(repository, source)
    fault(repository, first.image_id)
    assert pull(repository, source).image_id == first.image_id
    assert len(made) > 2
    assert sound(repository)


def test_what_another_tool_says_was_made_is_made_again(
    repository: Repository, source: LayoutSource, made: list[int]
) -> None:
    first = pull(repository, source)
    documents = find_image(repository, str(first.manifest_digest)).documents
    other = repository.images.add(b"another image")
    write_documents(repository, documents, {"composefs.image.boot": other})
    assert images_made(repository, first.config_digest, DIFF_IDS_PARSED) == {}
    assert pull(repository, source).image_id == first.image_id
    assert len(made) > 2


def test_images_of_another_layer_do_not_count(
    repository: Repository, source: LayoutSource, made: list[int]
) -> None:
    first = pull(repository, source)
    replace_layer(repository)
    assert images_made(repository, first.config_digest, DIFF_IDS_PARSED) == {}
    assert pull(repository, source).image_id == first.image_id


DIFF_IDS_PARSED = [OciDigest.parse(diff_id) for diff_id in DIFF_IDS]


def replace_layer(repository: Repository) -> None:
    stream = split_layer(io.BytesIO(FLIPPED), OciDigest.of(FLIPPED), repository.objects)
    repository.streams.write(f"oci-layer-{DIFF_IDS[1]}", stream)


@pytest.mark.parametrize("trusted", [True, False])
def test_a_layer_that_the_configuration_does_not_name_is_compared(
    repository: Repository, source: LayoutSource, trusted: bool
) -> None:
    pulled: Pulled = pull(repository, source)
    config = find_image(repository, str(pulled.manifest_digest)).stored_config
    tree = config_tree(repository, config, bootable=False, trusted=trusted)
    assert mkfs_erofs(tree) == mkfs_erofs(pulled.root)
    replace_layer(repository)
    with pytest.raises(DigestMismatch):
        config_tree(repository, config, bootable=False, trusted=trusted)
