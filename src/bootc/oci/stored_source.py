"""An image of a repository as a source, for a pull into another repository."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import Descriptor, Manifest
from bootc.oci.blob import Blob
from bootc.oci.layers import layer_archive, layer_size
from bootc.oci.stored import StoredImage
from bootc.repository.repository import Repository


class StoredSource:
    """A stored image, read like one of a registry (:class:`bootc.oci.source.Source`).

    It serves each layer uncompressed. The pull compares a layer with its ``diff_id``.

    Args:
        repository: The repository.
        image: The image, which is not an artifact.
        imgref: The image reference of the source.
    """

    def __init__(self, repository: Repository, image: StoredImage, imgref: ImageReference) -> None:
        documents = image.documents
        self.imgref = imgref
        self.manifest_digest = documents.manifest_digest
        self.manifest_raw = documents.manifest_raw
        self.config_raw = documents.config_raw
        self._repository = repository
        descriptors = Manifest.parse(documents.manifest_raw).layers
        self._diff_ids = {
            descriptor.digest: diff_id
            for descriptor, diff_id in zip(descriptors, documents.diff_ids, strict=True)
        }
        self.layers = tuple(
            dataclasses.replace(descriptor, size_bytes=layer_size(repository, diff_id))
            for descriptor, diff_id in zip(descriptors, documents.diff_ids, strict=True)
        )

    @contextlib.contextmanager
    def blob(self, descriptor: Descriptor) -> Iterator[Blob]:
        """Open a layer: its archive, put together from the repository."""
        yield _Archive(layer_archive(self._repository, self._diff_ids[descriptor.digest]))


class _Archive:
    """Pieces of an archive, read by size."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end."""
        while not self._rest and (piece := next(self._pieces, None)) is not None:
            self._rest = piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
