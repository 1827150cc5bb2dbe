"""Comparison of stored streams with the digests in their names.

A stream can be a manifest, a configuration or a layer. :class:`Contents` reads each layer once,
no matter how many images use it. Memory does not grow with the size of a layer.

There are two kinds of errors. :data:`WRONG` means that the stream is sound but holds other
content than its name says: reading it again gives the same error, and fetching heals it. Any
other error means that the stream cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterator

from bootc.errors import Error
from bootc.formats import splitstream
from bootc.formats.digest import Digest, DigestMismatch, OciDigest
from bootc.formats.splitstream import SplitstreamError
from bootc.oci.documents import Document, read_document
from bootc.oci.layers import check_layer
from bootc.oci.names import StreamKind, parse_content_id
from bootc.repository.repository import Repository

#: Errors of a sound stream that does not hold what its name says.
WRONG = (DigestMismatch, SplitstreamError)

_TYPES = {StreamKind.MANIFEST: splitstream.OCI_MANIFEST, StreamKind.CONFIG: splitstream.OCI_CONFIG}


class Contents:
    """Compares streams, and remembers the verdict about layers.

    Args:
        repository: The repository with the streams; may be open for reading only.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        #: Streams that were compared, each with the digest it was compared with.
        self.seen: set[tuple[Digest, OciDigest]] = set()
        self._failed: dict[tuple[Digest, OciDigest], Error | OSError] = {}

    def document(self, kind: StreamKind, stream: Digest, digest: OciDigest) -> Document:
        """Return the manifest or the configuration that a stream holds.

        Raises:
            DigestMismatch, SplitstreamError: the stream holds something else.
            Error, OSError: the stream cannot be read.
        """
        self.seen.add((stream, digest))
        return read_document(self._repository, stream, digest, _TYPES[kind])

    def layer(self, stream: Digest, digest: OciDigest) -> None:
        """Put a layer together and compare it with its digest.

        Raises:
            DigestMismatch, SplitstreamError: the stream holds something else.
            Error, OSError: the stream cannot be read.
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

    def compare(self, kind: StreamKind, stream: Digest, digest: OciDigest) -> None:
        """Compare a stream of any kind with its digest.

        Raises:
            DigestMismatch, SplitstreamError: the stream holds something else.
            Error, OSError: the stream cannot be read.
        """
        if kind is StreamKind.LAYER:
            self.layer(stream, digest)
        else:
            self.document(kind, stream, digest)


def named_streams(
    repository: Repository, kind: StreamKind
) -> Iterator[tuple[str, Digest, OciDigest]]:
    """Yield all streams of a kind, no matter whether a tag keeps them.

    The function skips a link that leads to no object: the check of the repository reports it.

    Yields:
        The content id, the object that holds the stream, and the digest in the content id.
    """
    for name in repository.streams.names():
        parsed = parse_content_id(name)
        if parsed is None or parsed[0] is not kind:
            continue
        stream = repository.streams.find(name)
        if stream is not None:
            yield name, stream, parsed[1]
