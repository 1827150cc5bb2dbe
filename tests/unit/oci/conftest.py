"""A repository, and a source of the image of :mod:`support.layers`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import Descriptor
from bootc.fs.dir import Dir
from bootc.oci.blob import Blob
from bootc.oci.layoutdir import LayoutSource, open_layout
from bootc.oci.pull import Pulled, pull
from bootc.repository.repository import Repository
from support import images
from support.layers import LAYERS


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    target = tmp_path / "target"
    target.mkdir()
    with Dir.open(target) as root, Repository.create(root, secure=False) as repository:
        yield repository


@pytest.fixture
def source(tmp_path: Path) -> Iterator[LayoutSource]:
    layout = images.single(tmp_path / "layout", *LAYERS)
    with open_layout(ImageReference.parse(layout.reference()), images.ARCHITECTURE) as source:
        yield source


@pytest.fixture
def fetched(source: LayoutSource, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The layers that were fetched since, by their places in the image."""
    places = {descriptor.digest: number for number, descriptor in enumerate(source.layers)}
    found: list[int] = []
    original = LayoutSource.blob

    @contextmanager
    def counting(self: LayoutSource, descriptor: Descriptor) -> Iterator[Blob]:
        found.append(places[descriptor.digest])
        opened: AbstractContextManager[Blob] = original(self, descriptor)
        with opened as blob:
            yield blob

    monkeypatch.setattr(LayoutSource, "blob", counting)
    return found


@pytest.fixture
def pulled(repository: Repository, source: LayoutSource) -> Pulled:
    """The image in the repository, with the tag ``os``."""
    return pull(repository, source, tag="os")
