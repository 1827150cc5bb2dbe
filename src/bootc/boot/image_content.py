"""The content of files of an image, read from the repository and checked on the way."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from bootc.errors import Error
from bootc.formats.digest import Digest
from bootc.formats.tree import External, Inline, Leaf
from bootc.formats.verity import VerityHasher

_CHUNK_BYTES = 1 << 20


class DamagedKernel(Error):
    """The stored kernel or initramfs is not the one of the image."""


class ObjectSource(Protocol):
    """Where the content of large files comes from; a repository's ``objects`` are one."""

    def open(self, digest: Digest) -> int:
        """Return a read-only descriptor of an object."""


def size_of(leaf: Leaf) -> int:
    """Return the size of a regular file that :mod:`bootc.boot.image_kernel` found, in bytes."""
    return content_of(leaf).size_bytes


def open_content(leaf: Leaf, objects: ObjectSource) -> AbstractContextManager[BinaryIO]:
    """Open such a file for reading, unchecked.

    Raises:
        OSError: it cannot be opened.
    """
    content = content_of(leaf)
    if isinstance(content, Inline):
        return io.BytesIO(content.data)
    return open(objects.open(content.digest), "rb")


def checked_chunks(leaf: Leaf, objects: ObjectSource, what: str) -> Iterator[bytes]:
    """Yield the content of such a file, and fail at its end if it was that of another.

    Where the file system has no fs-verity the repository does not notice, and the
    firmware would not either.

    Raises:
        DamagedKernel: what was read is not what the image names; ``what`` says of what file.
        OSError: it cannot be read.
    """
    content = content_of(leaf)
    verity = VerityHasher(content.digest.algorithm) if isinstance(content, External) else None
    with open_content(leaf, objects) as source:
        while chunk := source.read(_CHUNK_BYTES):
            if verity is not None:
                verity.update(chunk)
            yield chunk
    if isinstance(content, External) and verity and verity.digest() != content.digest:
        raise DamagedKernel(
            f"the {what} in the repository is not the one of the image",
            hint="repair it with bootc internals cfs fsck --repair and pull the image again",
        )


def content_of(leaf: Leaf) -> Inline | External:
    """Return the content of such a file."""
    content = leaf.content
    assert isinstance(content, Inline | External), "discover finds regular files only"
    return content
