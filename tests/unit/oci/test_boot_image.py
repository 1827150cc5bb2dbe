"""A boot image made to match a digest."""

from __future__ import annotations

import os

import pytest

from bootc.formats.digest import Digest
from bootc.formats.splitstream import StreamReader
from bootc.oci import boot_image
from bootc.oci.boot_image import BootImage, match_boot_image
from bootc.oci.documents import write_documents
from bootc.oci.names import XattrMode
from bootc.oci.pull import Pulled
from bootc.oci.stored import find_image
from bootc.oci.tags import tagged
from bootc.oci.trees import boot_tree, image_id_of, stored_tree
from bootc.repository.repository import Repository


def test_a_match_is_found_again_and_made_again(repository: Repository, pulled: Pulled) -> None:
    def image_ids() -> dict[str, Digest]:
        stream = StreamReader(repository.streams.read(f"oci-config-{pulled.config_digest}"))
        return {k: v for k, v in stream.named_refs.items() if k.startswith("composefs")}

    before = image_ids()
    image = find_image(repository, "os")
    assert match_boot_image(repository, image, Digest.from_hex("ab" * 64)) is None
    found = match_boot_image(repository, image, pulled.image_id)
    assert found == BootImage(pulled.image_id, XattrMode.ALLOWLIST_ONLY, 1)
    assert image_ids() == before
    # It is named, and gone: it is made once more.
    os.unlink(f"{repository.dir.path}/images/{pulled.image_id}")
    assert match_boot_image(repository, image, pulled.image_id) == found
    assert repository.images.exists(pulled.image_id)
    assert image_ids() == before
    assert tagged(repository, "os") == pulled.manifest_digest


def test_an_image_that_was_made_by_other_rules(repository: Repository, pulled: Pulled) -> None:
    """An older program made another image of the same format, and its digest is on record."""
    image = find_image(repository, "os")
    other = repository.images.add(b"made by other rules")
    write_documents(repository, image.documents, {"composefs.image.boot": other})
    image = find_image(repository, "os")
    assert image.made(2, bootable=True) == other
    tree = boot_tree(repository, stored_tree(repository, image.documents.diff_ids))
    expected = image_id_of(tree, version=2)
    assert match_boot_image(repository, image, expected) == BootImage(
        expected, XattrMode.ALLOWLIST_ONLY, 2
    )
    assert find_image(repository, "os").made(2, bootable=True) == expected


def test_the_tree_of_a_pull_is_not_put_together_again(
    repository: Repository, pulled: Pulled, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = image_id_of(boot_tree(repository, pulled.root), version=2)
    image = find_image(repository, "os")
    with monkeypatch.context() as without:
        without.delattr(boot_image, "stored_tree")
        found = match_boot_image(repository, image, expected, plain=pulled.root)
    assert found == BootImage(expected, XattrMode.ALLOWLIST_ONLY, 2)
    assert repository.images.exists(expected)
    # The other mode has another tree.
    wrong = Digest.from_hex("ab" * 64)
    assert match_boot_image(repository, image, wrong, plain=pulled.root) is None
