"""Container images in a repository, read back.

A caller names an image by its tag or by the digest of its manifest, with or without an ``@`` in
front. Other tools also store artifacts: manifests of something else than a container image.
This module lists and reads them like images.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bootc.errors import Error, doing, one_line
from bootc.formats import ocispec, splitstream
from bootc.formats.digest import Digest, DigestError, DigestMismatch, OciDigest
from bootc.formats.ocispec import ImageConfig, Manifest
from bootc.oci.contents import named_streams
from bootc.oci.documents import Documents, read_config, read_document, read_manifest
from bootc.oci.names import (
    FORMAT_VERSIONS,
    StreamKind,
    config_id,
    image_name,
    images_in,
    manifest_id,
)
from bootc.oci.tags import LIST_HINT, NotStored, require_stored, tag_names, tagged
from bootc.repository.repository import Repository

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """A configuration, and the object that holds its stream."""

    digest: OciDigest
    stream: Digest


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image of a repository."""

    #: For an artifact, ``diff_ids`` are the digests of its layers.
    documents: Documents
    stored_config: StoredConfig
    #: None for an artifact.
    config: ImageConfig | None
    #: EROFS images made of this image, by :func:`bootc.oci.names.image_name`.
    images: Mapping[str, Digest]

    def made(self, version: int, *, bootable: bool) -> Digest | None:
        """Return the EROFS image of a format version, made with the default mode of xattrs."""
        if version not in FORMAT_VERSIONS:
            return None
        return self.images.get(image_name(version, bootable=bootable))


@dataclass(frozen=True, slots=True)
class Artifact:
    """A manifest of something else than a container image."""

    config: OciDigest
    layers: tuple[OciDigest, ...]


def artifact_of(raw: bytes) -> Artifact | None:
    """Return the artifact that a manifest describes.

    None means that it describes a container image, or that it is not a manifest.
    """
    try:
        top = json.loads(raw)
        if top["config"]["mediaType"] in ocispec.CONFIG_TYPES:
            return None
        return Artifact(
            OciDigest.parse(top["config"]["digest"]),
            tuple(OciDigest.parse(layer["digest"]) for layer in top["layers"]),
        )
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError, DigestError):
        return None


def find_image(repository: Repository, reference: str) -> StoredImage:
    """Return an image by its tag, or by the digest of its manifest.

    Raises:
        NotStored: the repository has no such image.
        Error, OSError: the stored documents are damaged.
    """
    digest = digest_in(reference)
    if digest is None:
        digest = tagged(repository, reference)
    require_stored(repository, digest)
    return read_image(repository, digest)


def read_image(repository: Repository, digest: OciDigest) -> StoredImage:
    """Return an image by the digest of its manifest.

    Raises:
        DigestMismatch: a stream holds another document.
        ImageSpecError, SplitstreamError: a document or a stream is malformed.
        Error, OSError: a document cannot be read.
    """
    with doing(f"Reading image {digest}"):
        manifest = read_manifest(repository, digest)
        artifact = artifact_of(manifest.raw)
        config_digest = artifact.config if artifact else Manifest.parse(manifest.raw).config.digest
        found = read_config(repository, manifest, config_digest)
        config = None if artifact else ImageConfig.parse(found.raw)
        layers = config.diff_ids if config else artifact.layers if artifact else ()
    documents = Documents(digest, manifest.raw, config_digest, found.raw, layers)
    return StoredImage(
        documents, StoredConfig(config_digest, found.stream), config, images_in(found.references)
    )


def list_images(repository: Repository) -> Iterator[tuple[str, StoredImage]]:
    """Yield every tag with its image. An image that cannot be read gets a warning instead."""
    for tag in tag_names(repository):
        try:
            yield tag, read_image(repository, tagged(repository, tag))
        except (Error, OSError) as exc:
            _log.warning("skipping image %s: %s", tag, one_line(exc))


def find_config(
    repository: Repository, reference: str, verity: Digest | None = None
) -> StoredConfig:
    """Return a configuration by the tag of an image, or by its own digest.

    Args:
        repository: The repository.
        reference: The tag, or the digest of the *configuration*.
        verity: The object that the stream of the configuration is expected to be.

    Raises:
        NotStored: the repository has no such configuration.
        DigestMismatch: the stream is not ``verity``.
        Error, OSError: the stored documents are damaged.
    """
    digest = digest_in(reference)
    if digest is None:
        found = find_image(repository, reference).stored_config
    else:
        stream = repository.streams.find(config_id(digest)) or _named_config(repository, digest)
        if stream is None:
            hint = LIST_HINT
            if repository.streams.find(manifest_id(digest)) is not None:
                hint = "this is the digest of a manifest: give the image's tag"
            raise NotStored(f"there is no configuration {digest}", hint=hint)
        found = StoredConfig(digest, stream)
    if verity not in (None, found.stream):
        raise DigestMismatch(
            f"the stream of configuration {found.digest} is {found.stream} and not {verity}"
        )
    return found


def _named_config(repository: Repository, digest: OciDigest) -> Digest | None:
    """Return the stream of a configuration that has lost its link but that a manifest names."""
    for _, stream, manifest in named_streams(repository, StreamKind.MANIFEST):
        try:
            found = read_document(repository, stream, manifest, splitstream.OCI_MANIFEST)
        except (Error, OSError):
            continue
        if named := found.references.get(f"config:{digest}"):
            return named
    return None


def digest_in(reference: str) -> OciDigest | None:
    """Return the digest that a reference is, or None if it is a tag."""
    try:
        return OciDigest.parse(reference.removeprefix("@"))
    except DigestError:
        if reference.startswith("@"):
            raise
        return None
