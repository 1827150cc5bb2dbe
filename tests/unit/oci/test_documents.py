"""Manifests and configurations, written and read."""

from __future__ import annotations

import dataclasses
import os
import tracemalloc
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, Digest, DigestMismatch
from bootc.formats.splitstream import StreamReader, StreamWriter
from bootc.oci.documents import read_documents
from bootc.oci.layoutdir import LayoutSource
from bootc.oci.pull import Pulled, pull
from bootc.oci.stored import find_image
from bootc.repository.repository import Repository
from support import images
from support.images import opened
from support.layers import sound


def test_references_of_other_tools_are_kept(tmp_path: Path, repository: Repository) -> None:
    layout = images.single(tmp_path / "layout", images.bootable())
    other = Digest(Algorithm.SHA512, bytes(range(64)))
    with opened(layout) as source:
        pulled = pull(repository, source)
        name = f"oci-config-{pulled.config_digest}"
        writer = splitstream.StreamWriter(Algorithm.SHA512, splitstream.OCI_CONFIG)
        writer.refer("composefs.image.boot", other)
        writer.external(repository.objects.put(source.config_raw), len(source.config_raw))
        repository.streams.write(name, writer.finish())
        pull(repository, source)
    named = StreamReader(repository.streams.read(name)).named_refs
    assert named["composefs.image.boot"] == other
    assert named["composefs.image.boot.v1"] == pulled.image_id


@pytest.mark.parametrize("document", ["manifest_raw", "config_raw"])
def test_nothing_is_stored_under_another_digest(
    tmp_path: Path, repository: Repository, document: str
) -> None:
    """Whatever a source says, the digest of a document is computed where it is stored."""
    layout = images.single(tmp_path / "layout", images.bootable())
    with opened(layout) as source:
        lying = dataclasses.replace(source, **{document: getattr(source, document) + b" "})
        with pytest.raises(DigestMismatch, match="instead of sha256:"):
            pull(repository, lying)
    assert repository.streams.refs() == {}
    assert [name for name in repository.streams.names() if "layer" not in name] == []


def test_other_documents_are_replaced(repository: Repository, source: LayoutSource) -> None:
    pulled = pull(repository, source, tag="x")
    for name, kind in (
        (f"oci-manifest-{pulled.manifest_digest}", splitstream.OCI_MANIFEST),
        (f"oci-config-{pulled.config_digest}", splitstream.OCI_CONFIG),
    ):
        other = StreamWriter(repository.algorithm, kind)
        other.external(repository.objects.put(b"{}"), 2)
        repository.streams.write(name, other.finish())
    pull(repository, source, tag="x")
    image = find_image(repository, "x")
    assert image.documents.manifest_raw == source.manifest_raw
    assert image.documents.config_raw == source.config_raw
    assert sound(repository)


@pytest.mark.parametrize("size", [3 << 30, 1 << 40])
@pytest.mark.parametrize("which", ["oci-manifest", "oci-config"])
def test_a_huge_file_in_place_of_a_document_takes_no_memory(
    repository: Repository, pulled: Pulled, size: int, which: str
) -> None:
    # What bootc status reads.
    names = {"oci-manifest": pulled.manifest_digest, "oci-config": pulled.config_digest}
    stream = repository.streams.digest_of(f"{which}-{names[which]}")
    os.truncate(f"{repository.dir.path}/objects/{stream.object_path}", size)
    tracemalloc.start()
    try:
        with pytest.raises(OSError, match="file is larger than 33554432 bytes") as caught:
            read_documents(repository, pulled.manifest_digest)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert stream.object_path in one_line(caught.value)
