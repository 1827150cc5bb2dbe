"""Streams of a repository compared with the digests that they are named by.

Owns: the verdict whether a stream is the manifest, the configuration or the layer that
its name says. Promises: each layer is read once, however many images have it; memory does
not grow with the size of a layer.

A stream that is another one is told from one that cannot be read: :data:`WRONG` are the
errors that reading again would give again, and that fetching heals.
"""

from __future__ import annotations

from collections.abc import Iterator

from bootc.errors import Error
from bootc.formats import splitstream
from bootc.formats.digest import Digest, DigestMismatch, OciDigest
from bootc.formats.splitstream import SplitstreamError
from bootc.oci.documents import Document, read_document
from bootc.oci.layers import check_layer
from bootc.oci.names import Kind, parse_content_id
from bootc.repository.repository import Repository

#: A stream is sound as an object, and not what its name says.
WRONG = (DigestMismatch, SplitstreamError)

_TYPES = {Kind.MANIFEST: splitstream.OCI_MANIFEST, Kind.CONFIG: splitstream.OCI_CONFIG}


class Contents:
    """Compares streams, and remembers the layers among them.

    Args:
        repository: Where they are; open for reading will do.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        #: What streams were compared with.
        self.seen: set[tuple[Digest, OciDigest]] = set()
        self._failed: dict[tuple[Digest, OciDigest], Error | OSError] = {}

    def document(self, kind: Kind, stream: Digest, digest: OciDigest) -> Document:
        """Return the manifest or the configuration that a stream consists of.

        Raises:
            DigestMismatch, SplitstreamError: it is another one.
            Error, OSError: it cannot be read.
        """
        self.seen.add((stream, digest))
        return read_document(self._repository, stream, digest, _TYPES[kind])

    def layer(self, stream: Digest, digest: OciDigest) -> None:
        """Put a layer together and compare it with its digest.

        Raises:
            DigestMismatch, SplitstreamError: it is another one.
            Error, OSError: it cannot be read.
        """
        key = stream, digest
        if key not in self.seen:
            self.seen.add(key)
            try:
                check_layer(self._repository, digest, stream)
            except (Error, OSError) as exc:
                self._failed[key] = exc
        if key in self._failed:
            raise self._failed[key]

    def compare(self, kind: Kind, stream: Digest, digest: OciDigest) -> None:
        """Compare any stream with its digest.

        Raises:
            DigestMismatch, SplitstreamError: it is another one.
            Error, OSError: it cannot be read.
        """
        if kind is Kind.LAYER:
            self.layer(stream, digest)
        else:
            self.document(kind, stream, digest)


def named_streams(repository: Repository, kind: Kind) -> Iterator[tuple[str, Digest, OciDigest]]:
    """Yield all manifests, configurations or layers, tagged or not.

    A link that leads to no object is left out: it is for the check of the repository to find.

    Yields:
        The content id, the object that the stream is, and the digest in the name.
    """
    for name in repository.streams.names():
        parsed = parse_content_id(name)
        if parsed is None or parsed[0] is not kind:
            continue
        stream = repository.streams.find(name)
        if stream is not None:
            yield name, stream, parsed[1]
