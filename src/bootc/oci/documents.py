"""The manifest and the configuration of an image, in a repository.

This module is the only reader and the only writer of these documents (composefs, "Streams
written for an OCI image"). A document that it returns has the digest that the caller asked for,
no matter who stored it. Reading a document needs memory for one document.

``bootc status`` imports this module, therefore it imports nothing of trees and layers.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from bootc.errors import Error, doing, one_line
from bootc.formats import ocispec, splitstream
from bootc.formats.digest import Digest, OciDigest, check_digest
from bootc.formats.ocispec import ImageConfig, Manifest
from bootc.formats.splitstream import StreamReader, StreamWriter
from bootc.oci.names import config_id, images_in, layer_id, manifest_id
from bootc.repository.repository import Repository
from bootc.repository.sealing import HEALED

_log = logging.getLogger(__name__)

#: References with their names, and the document itself if an old tool stored it inline.
_MAX_STREAM_BYTES = 32 << 20
_MAX_BYTES = {
    splitstream.OCI_MANIFEST: ocispec.MAX_MANIFEST_BYTES,
    splitstream.OCI_CONFIG: ocispec.MAX_CONFIG_BYTES,
}


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was compared with its digest."""

    #: The object that holds the stream of the document.
    stream: Digest
    raw: bytes
    #: Streams and images that the stream names.
    references: Mapping[str, Digest]


@dataclass(frozen=True, slots=True)
class Documents:
    """Both documents of an image, byte for byte."""

    manifest_digest: OciDigest
    manifest_raw: bytes
    config_digest: OciDigest
    config_raw: bytes
    #: The layers, lowest first.
    diff_ids: tuple[OciDigest, ...]


# -- reading


def read_documents(repository: Repository, digest: OciDigest) -> tuple[Manifest, ImageConfig]:
    """Return the parsed manifest and configuration of a container image.

    Raises:
        FileNotFoundError: one of them is missing.
        ImageSpecError: they are malformed, or belong to an artifact.
        Error, OSError: as :func:`read_document`.
    """
    found = read_manifest(repository, digest)
    manifest = Manifest.parse(found.raw)
    config = read_config(repository, found, manifest.config.digest)
    return manifest, ImageConfig.parse(config.raw)


def read_manifest(repository: Repository, digest: OciDigest) -> Document:
    """Return the manifest of an image.

    Raises:
        FileNotFoundError: the repository has no such manifest.
        Error, OSError: as :func:`read_document`.
    """
    stream = repository.streams.digest_of(manifest_id(digest))
    return read_document(repository, stream, digest, splitstream.OCI_MANIFEST)


def read_config(repository: Repository, manifest: Document, digest: OciDigest) -> Document:
    """Return the configuration that a manifest names.

    The stream of the manifest refers to the stream of the configuration. The link of the
    configuration is only the second choice: another image with the same configuration moves the
    link, and a garbage collection may remove it.

    Raises:
        FileNotFoundError: the repository has no such configuration.
        Error, OSError: as :func:`read_document`.
    """
    stream = manifest.references.get(f"config:{digest}")
    if stream is None:
        stream = repository.streams.digest_of(config_id(digest))
    return read_document(repository, stream, digest, splitstream.OCI_CONFIG)


def read_document(
    repository: Repository, stream: Digest, digest: OciDigest, content_type: bytes
) -> Document:
    """Return the document that a stream holds.

    Args:
        repository: The repository with the stream.
        stream: The object that holds the stream.
        digest: The expected digest of the document.
        content_type: The expected type of the stream.

    Raises:
        DigestMismatch: the stream holds another document.
        SplitstreamError: the object is not a stream of this type.
        Error, OSError: the stream is damaged, larger than any document, or unreadable.
    """
    objects = repository.objects
    with doing(f"Reading stream {stream}"):
        reader = StreamReader(objects.read(stream, limit=_MAX_STREAM_BYTES))
        reader.expect(content_type, repository.algorithm)
        raw = b""
        left = limit = _MAX_BYTES[content_type]
        for piece in reader.chunks():
            # A small document may be in the stream itself.
            raw += objects.read(piece, limit=left) if isinstance(piece, Digest) else piece
            left = limit - len(raw)
            if left < 0:
                raise OSError(errno.EFBIG, f"document is larger than {limit} bytes")
    _compare(f"stream {stream}", raw, digest)
    return Document(stream, raw, reader.named_refs)


# -- writing


def write_documents(
    repository: Repository, documents: Documents, made: Mapping[str, Digest]
) -> None:
    """Write the streams of the configuration and of the manifest of an image.

    The layers must be in the repository. If a stored configuration names EROFS images that were
    made of the same layers, the new stream names them too.

    Args:
        repository: The repository; writable.
        documents: The documents.
        made: EROFS images that were made of the image, by :func:`bootc.oci.names.image_name`.

    Raises:
        DigestMismatch: a document does not have its digest.
        FileNotFoundError: a layer is missing.
    """
    _compare("the manifest", documents.manifest_raw, documents.manifest_digest)
    _compare("the configuration", documents.config_raw, documents.config_digest)
    streams = repository.streams
    layers = {str(d): streams.digest_of(layer_id(d)) for d in documents.diff_ids}
    kept = _images_kept(repository, documents.config_digest, layers)
    config = _stream(
        repository, splitstream.OCI_CONFIG, documents.config_raw, {**layers, **kept, **made}
    )
    config_stream = streams.write(config_id(documents.config_digest), config)
    named = {f"config:{documents.config_digest}": config_stream, **layers}
    manifest = _stream(repository, splitstream.OCI_MANIFEST, documents.manifest_raw, named)
    streams.write(manifest_id(documents.manifest_digest), manifest)


def _images_kept(
    repository: Repository, digest: OciDigest, layers: Mapping[str, Digest]
) -> dict[str, Digest]:
    """Return the EROFS images that the stored configuration names and that are still valid.

    They have another format version or another mode of extended attributes, or other tools made
    them. If a layer was replaced since, no image is valid.
    """
    stream = repository.streams.find(config_id(digest))
    if stream is None:
        return {}
    try:
        present = read_document(repository, stream, digest, splitstream.OCI_CONFIG).references
    except (Error, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno not in HEALED:
            raise
        _log.warning("replacing the stored configuration %s: %s", digest, one_line(exc))
        return {}
    same = all(present.get(diff_id, layer) == layer for diff_id, layer in layers.items())
    return images_in(present) if same else {}


def _stream(
    repository: Repository, content_type: bytes, raw: bytes, references: Mapping[str, Digest]
) -> bytes:
    """Return a stream that consists of references and one object: the document."""
    stream = StreamWriter(repository.algorithm, content_type)
    for name, digest in references.items():
        stream.refer(name, digest)
    stream.external(repository.objects.put(raw), len(raw))
    return stream.finish()


def _compare(what: str, raw: bytes, digest: OciDigest) -> None:
    found = digest.new()
    found.update(raw)
    check_digest(what, found.hexdigest(), digest)
