"""Container images that are in a repository: found, named, read back.

Owns: the tags ``streams/refs/oci/`` and what is read of the streams that
:mod:`bootc.oci.pull` writes (composefs, "Streams written for an OCI image"). Promises: a
manifest or a configuration that is handed out is the one its digest names; a layer put
together again was compared with its ``diff_id`` when its last byte has come out. Artifacts
that are no container images, which other tools store, are listed and read like images.

An image is asked for by its tag or by the digest of its manifest, with or without an ``@``
in front.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bootc.errors import Error, doing, one_line
from bootc.formats import ocispec, splitstream
from bootc.formats.digest import Digest, DigestError, DigestMismatch, OciDigest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.ocispec import ImageConfig, Manifest
from bootc.formats.tree import Directory
from bootc.formats.verity import verity_digest
from bootc.oci.contents import named_streams
from bootc.oci.documents import read_config, read_document, read_manifest
from bootc.oci.layers import check_layer
from bootc.oci.names import Kind, config_id, manifest_id, manifest_of, tag_ref
from bootc.oci.pull import (
    FORMAT_VERSIONS,
    Documents,
    boot_tree,
    image_name,
    images_in,
    stored_tree,
    write_documents,
)
from bootc.oci.seal import XattrMode
from bootc.repository import layout
from bootc.repository.content import objects_of
from bootc.repository.links import MAX_REFERENCES, decode_tag, encode_tag, is_ref_name
from bootc.repository.repository import Repository

_log = logging.getLogger(__name__)

_REFS = f"{layout.STREAMS}/{layout.REFS}"
_TAGS = f"{_REFS}/oci"
_REFERRERS = f"{_REFS}/oci-referrers"
_NAME_MAX = 255
_LIST = "bootc internals cfs oci images lists what there is"


class NotStored(Error):
    """The repository has no such image."""


class BadTag(Error):
    """A tag that no image can have."""


@dataclass(frozen=True, slots=True)
class StoredConfig:
    """A configuration, and the object that its stream consists of."""

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
    #: EROFS images made of it, by :func:`bootc.oci.pull.image_name`.
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


@dataclass(frozen=True, slots=True)
class BootImage:
    """A boot image, and how it was made."""

    image_id: Digest
    xattrs: XattrMode
    version: int


def artifact_of(raw: bytes) -> Artifact | None:
    """Return an artifact, or None if the manifest is that of an image, or none at all."""
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


# -- tags


def tag_names(repository: Repository) -> list[str]:
    """Return everything that is used as a tag, whatever it refers to, sorted."""
    try:
        with repository.dir.open_dir(_TAGS) as tags:
            return sorted(decode_tag(name) for name in tags.names(MAX_REFERENCES))
    except (FileNotFoundError, NotADirectoryError):
        # What stands in their place is for a check of the repository to find.
        return []


def tagged(repository: Repository, tag: str) -> OciDigest:
    """Return the manifest a tag refers to, which may be missing.

    Raises:
        BadTag: no image can have such a tag.
        NotStored: there is no such tag, or it refers to something else.
    """
    require_tag(tag)
    try:
        with doing(f"Looking up the tag {tag!r}"):
            target = repository.dir.readlink(f"{_TAGS}/{encode_tag(tag)}")
    except FileNotFoundError as exc:
        raise NotStored(f"no image is tagged {tag!r}", hint=_LIST) from exc
    digest = _manifest_in(target)
    if digest is None:
        raise NotStored(f"the tag {tag!r} refers to no manifest but to {target[:200]!r}")
    return digest


def require_tag(tag: str) -> None:
    """Refuse what cannot be a tag.

    Raises:
        BadTag: it starts with ``@``, or is no name of a file even when encoded.
    """
    if tag.startswith("@"):
        raise BadTag(f"bad tag {tag!r:.300}: a leading '@' is reserved for digests")
    if not is_ref_name(tag_ref(tag)) or len(os.fsencode(encode_tag(tag))) > _NAME_MAX:
        raise BadTag(f"bad tag {tag!r:.300}")


def tag_image(repository: Repository, digest: OciDigest, tag: str) -> None:
    """Give an image a tag, which another image may have had.

    Raises:
        BadTag: no image can have it.
        NotStored: there is no such image.
    """
    require_tag(tag)
    _require_stored(repository, digest)
    repository.streams.set_ref(tag_ref(tag), manifest_id(digest))


def untag_image(repository: Repository, tag: str) -> None:
    """Remove a tag; the image stays until garbage is collected.

    Raises:
        BadTag: no image can have it.
        NotStored: no image has it.
    """
    require_tag(tag)
    try:
        repository.streams.remove_ref(tag_ref(tag))
    except FileNotFoundError as exc:
        raise NotStored(f"no image is tagged {tag!r}", hint=_LIST) from exc


# -- images


def find_image(repository: Repository, reference: str) -> StoredImage:
    """Return an image by its tag, or by the digest of its manifest.

    Raises:
        NotStored: there is none.
        Error, OSError: what is stored of it is damaged.
    """
    digest = _digest_in(reference)
    if digest is None:
        digest = tagged(repository, reference)
    _require_stored(repository, digest)
    return read_image(repository, digest)


def read_image(repository: Repository, digest: OciDigest) -> StoredImage:
    """Return an image by the digest of its manifest.

    Raises:
        DigestMismatch: what is stored is another document.
        ImageSpecError, SplitstreamError: what is stored makes no sense.
        Error, OSError: it cannot be read.
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
    """Yield every tag with its image; one that cannot be read is a warning."""
    for tag in tag_names(repository):
        try:
            yield tag, read_image(repository, tagged(repository, tag))
        except (Error, OSError) as exc:
            _log.warning("skipping image %s: %s", tag, one_line(exc))


def referrers(repository: Repository, digest: OciDigest) -> tuple[OciDigest, ...]:
    """Return the manifests of signatures and the like that refer to an image."""
    found = []
    try:
        with repository.dir.open_dir(f"{_REFERRERS}/{encode_tag(str(digest))}") as below:
            names = below.names(MAX_REFERENCES)
    except (FileNotFoundError, NotADirectoryError):
        return ()
    for name in names:
        try:
            found.append(OciDigest.parse(decode_tag(name)))
        except DigestError:
            _log.warning("%s/%s/%r is no digest", _REFERRERS, digest, name)
    return tuple(found)


# -- trees and what is made of them


def find_config(
    repository: Repository, reference: str, verity: Digest | None = None
) -> StoredConfig:
    """Return a configuration by an image's tag, or by its own digest.

    Args:
        repository: Where.
        reference: The tag, or the digest of the *configuration*.
        verity: What object the configuration's stream has to be.

    Raises:
        NotStored: there is none.
        DigestMismatch: it is another stream than ``verity``.
        Error, OSError: what is stored is damaged.
    """
    digest = _digest_in(reference)
    if digest is None:
        found = find_image(repository, reference).stored_config
    else:
        stream = repository.streams.find(config_id(digest)) or _named_config(repository, digest)
        if stream is None:
            hint = _LIST
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
    """Return the stream of a configuration whose link a collection took with another image."""
    for _, stream, manifest in named_streams(repository, Kind.MANIFEST):
        try:
            found = read_document(repository, stream, manifest, splitstream.OCI_MANIFEST)
        except (Error, OSError):
            continue
        if named := found.references.get(f"config:{digest}"):
            return named
    return None


def config_tree(
    repository: Repository,
    config: StoredConfig,
    *,
    bootable: bool,
    xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY,
    trusted: bool = False,
) -> Directory:
    """Return the tree that images are made of, put together from the layers.

    Args:
        repository: Where.
        config: The configuration.
        bootable: The tree to boot, not the plain one.
        xattrs: Which extended attributes are kept.
        trusted: The streams are known to be right: do not compare layers with their digests.

    Raises:
        DigestMismatch: a document or a layer is another one.
        SealError, LabelError: the tree lacks what every bootable one has.
        Error, OSError: what is stored is damaged.
    """
    with doing(f"Reading configuration {config.digest}"):
        found = read_document(repository, config.stream, config.digest, splitstream.OCI_CONFIG)
        diff_ids = ImageConfig.parse(found.raw).diff_ids
    if not trusted:
        for diff_id in diff_ids:
            check_layer(repository, diff_id)
    root = stored_tree(repository, diff_ids, xattrs)
    return boot_tree(repository, root) if bootable else root


def match_boot_image(
    repository: Repository, image: StoredImage, expected: Digest
) -> BootImage | None:
    """Return how a boot image has to be made so that it is the one expected, and make it so.

    Every mode of extended attributes is tried with every format version.

    Raises:
        Error, OSError: what is stored is damaged, or the image cannot be booted.
    """
    for xattrs in XattrMode:
        names = {
            version: image_name(version, bootable=True, xattrs=xattrs)
            for version in FORMAT_VERSIONS
        }
        for version, name in names.items():
            if image.images.get(name) == expected and _is_whole(repository, expected):
                return BootImage(expected, xattrs, version)
        unknown = [v for v, name in names.items() if image.images.get(name) in (None, expected)]
        if not unknown:
            continue
        root = stored_tree(repository, image.documents.diff_ids, xattrs)
        booted = boot_tree(repository, root)
        for version in unknown:
            data = mkfs_erofs(booted, version=version)
            if verity_digest(data, repository.algorithm) == expected:
                made = {names[version]: repository.images.add(data)}
                write_documents(repository, image.documents, made)
                return BootImage(expected, xattrs, version)
    return None


def _is_whole(repository: Repository, image: Digest) -> bool:
    """Tell whether an image can be mounted: it is registered, and all its objects are there."""
    if not repository.images.exists(image):
        return False
    try:
        return not repository.objects.missing(objects_of(repository.objects, image))
    except (Error, FileNotFoundError):
        return False


def _require_stored(repository: Repository, digest: OciDigest) -> None:
    if not repository.streams.exists(manifest_id(digest)):
        raise NotStored(f"there is no image {digest}", hint=_LIST)


def _digest_in(reference: str) -> OciDigest | None:
    """Return the digest a reference is, or None if it is a tag."""
    try:
        return OciDigest.parse(reference.removeprefix("@"))
    except DigestError:
        if reference.startswith("@"):
            raise
        return None


def _manifest_in(target: str) -> OciDigest | None:
    return manifest_of(target.rpartition("/")[2])
