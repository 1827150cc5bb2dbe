"""Bytes of blobs, checked while they are read.

A caller that reads a :class:`VerifiedBlob` to its end has read exactly the bytes that the
descriptor names, or has got :class:`DigestMismatch`. Before the end the bytes are unchecked: the
caller must not publish anything made of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bootc.errors import Error
from bootc.formats.digest import DigestMismatch, check_digest
from bootc.formats.ocispec import Descriptor

CHUNK_BYTES = 1 << 18


class LayerError(Error):
    """A layer cannot be decompressed."""


class Blob(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, and no bytes at the end."""


class VerifiedBlob:
    """The bytes of a blob, checked at their end.

    Args:
        read: Returns at most as many bytes as asked for, and no bytes at the end.
        descriptor: The expected size and digest.
    """

    def __init__(self, read: Callable[[int], bytes], descriptor: Descriptor) -> None:
        self._read = read
        self._descriptor = descriptor
        self._hash = descriptor.digest.new()
        self._size_bytes = 0

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes, and no bytes at the end.

        Raises:
            DigestMismatch: at the end, if the size or the digest is wrong.
        """
        data = self._read(size)
        self._hash.update(data)
        self._size_bytes += len(data)
        wanted = self._descriptor
        if self._size_bytes > wanted.size_bytes or (not data and size):
            if self._size_bytes != wanted.size_bytes:
                found = "more" if data else f"{self._size_bytes} bytes"
                raise DigestMismatch(
                    f"blob {wanted.digest} should have {wanted.size_bytes} bytes and has {found}"
                )
            check_digest(f"blob {wanted.digest}", self._hash.hexdigest(), wanted.digest)
        return data


def read_whole(blob: Blob, descriptor: Descriptor, limit: int) -> bytes:
    """Return the whole content of a small blob; ``blob`` must be verified.

    Raises:
        DigestMismatch: the blob does not match its descriptor, or is larger than ``limit``.
    """
    if descriptor.size_bytes > limit:
        raise DigestMismatch(
            f"blob {descriptor.digest} of {descriptor.size_bytes} bytes is too large "
            f"for {descriptor.media_type}"
        )
    parts = []
    while part := blob.read(CHUNK_BYTES):
        parts.append(part)
    return b"".join(parts)
