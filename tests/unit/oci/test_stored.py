"""Stored images, found and read back."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.formats import splitstream
from bootc.formats.digest import DigestMismatch
from bootc.formats.splitstream import SplitstreamError
from bootc.oci.pull import Pulled
from bootc.oci.stored import artifact_of, find_config, find_image, list_images, read_image
from bootc.oci.trees import config_tree
from bootc.repository.repository import Repository
from support.layers import put_document


def test_an_image_is_read_back(repository: Repository, pulled: Pulled) -> None:
    image = find_image(repository, "os")
    assert image.documents.manifest_digest == pulled.manifest_digest
    assert image.documents.config_digest == pulled.config_digest
    assert image.documents.diff_ids == pulled.config.diff_ids
    assert image.config == pulled.config
    assert image.made(1, bootable=True) == pulled.image_id
    assert image.made(2, bootable=True) is None
    # There are no images of version 0, and no name for one.
    assert image.made(0, bootable=True) is None
    assert find_image(repository, f"@{pulled.manifest_digest}") == image
    assert dict(list_images(repository)) == {"os": image}
    assert find_config(repository, "os") == image.stored_config
    assert image.stored_config.digest == pulled.config_digest


def test_a_document_that_is_another_one(repository: Repository, pulled: Pulled) -> None:
    name = f"oci-manifest-{pulled.manifest_digest}"
    put_document(repository, name, splitstream.OCI_MANIFEST, b"{}")
    with pytest.raises(DigestMismatch, match="has the digest sha256:44136fa"):
        read_image(repository, pulled.manifest_digest)
    put_document(repository, name, splitstream.OCI_CONFIG, b"{}")
    with pytest.raises(SplitstreamError, match="content type"):
        find_image(repository, "os")


def test_a_configuration_that_is_another_one(repository: Repository, pulled: Pulled) -> None:
    name = f"oci-config-{pulled.config_digest}"
    put_document(repository, name, splitstream.OCI_CONFIG, b"{}")
    found = find_config(repository, str(pulled.config_digest))
    with pytest.raises(DigestMismatch, match=f"{found.stream} has the digest"):
        config_tree(repository, found, bootable=False)
    # The image's own is by what its manifest refers to, wherever the link may lead.
    config_tree(repository, find_config(repository, "os"), bootable=False)


def test_a_configuration_whose_link_a_collection_took(
    repository: Repository, pulled: Pulled
) -> None:
    before = read_image(repository, pulled.manifest_digest)
    Path(repository.dir.path, f"streams/oci-config-{pulled.config_digest}").unlink()
    assert read_image(repository, pulled.manifest_digest) == before
    assert find_config(repository, "os") == before.stored_config


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"config": 1}',
        b"[" * 100000,
        b'{"config": {"mediaType": "x"}}',
    ],
)
def test_no_artifact(raw: bytes) -> None:
    assert artifact_of(raw) is None
