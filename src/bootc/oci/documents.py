"""Manifests and configurations read back from a repository, in one place.

Owns: how a document is found and what it has to be (composefs, "Streams written for an
OCI image"). Promises: a document that is handed out has the digest that it was asked for
by, whoever stored it; reading one takes memory for one document.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass

from bootc.errors import doing
from bootc.formats import ocispec, splitstream
from bootc.formats.digest import Digest, OciDigest, check_digest
from bootc.formats.splitstream import StreamReader
from bootc.oci.names import config_id, manifest_id
from bootc.repository.repository import Repository

#: References and their names, and the document itself where an old tool left it inside.
_MAX_STREAM_BYTES = 32 << 20
_MAX_BYTES = {
    splitstream.OCI_MANIFEST: ocispec.MAX_MANIFEST_BYTES,
    splitstream.OCI_CONFIG: ocispec.MAX_CONFIG_BYTES,
}


@dataclass(frozen=True, slots=True)
class Document:
    """A document that has been compared with its digest."""

    #: The object that its stream is.
    stream: Digest
    raw: bytes
    #: Streams and images that its stream names.
    references: Mapping[str, Digest]


def read_manifest(repository: Repository, digest: OciDigest) -> Document:
    """Return the manifest of an image.

    Raises:
        FileNotFoundError: there is none.
        Error, OSError: as :func:`read_document`.
    """
    stream = repository.streams.digest_of(manifest_id(digest))
    return read_document(repository, stream, digest, splitstream.OCI_MANIFEST)


def read_config(repository: Repository, manifest: Document, digest: OciDigest) -> Document:
    """Return the configuration that a manifest names.

    Its stream is found through the manifest's, and not by its own link: other images of the
    same configuration move the link, and a collection removes it.

    Raises:
        FileNotFoundError: there is none.
        Error, OSError: as :func:`read_document`.
    """
    stream = manifest.references.get(f"config:{digest}")
    if stream is None:
        stream = repository.streams.digest_of(config_id(digest))
    return read_document(repository, stream, digest, splitstream.OCI_CONFIG)


def read_document(
    repository: Repository, stream: Digest, digest: OciDigest, content_type: bytes
) -> Document:
    """Return the document that a stream consists of.

    Args:
        repository: Where.
        stream: The object that the stream is.
        digest: What the document has to be.
        content_type: What the stream has to be.

    Raises:
        DigestMismatch: it is another document.
        SplitstreamError: it is no stream of this type.
        Error, OSError: it is damaged, larger than any document, or cannot be read.
    """
    objects = repository.objects
    with doing(f"Reading stream {stream}"):
        reader = StreamReader(objects.read(stream, limit=_MAX_STREAM_BYTES))
        reader.expect(content_type, repository.algorithm)
        raw = b""
        left = limit = _MAX_BYTES[content_type]
        for piece in reader.chunks():
            # What is small may be in the stream itself.
            raw += objects.read(piece, limit=left) if isinstance(piece, Digest) else piece
            left = limit - len(raw)
            if left < 0:
                raise OSError(errno.EFBIG, f"document is larger than {limit} bytes")
    found = digest.new()
    found.update(raw)
    check_digest(f"stream {stream}", found.hexdigest(), digest)
    return Document(stream, raw, reader.named_refs)
