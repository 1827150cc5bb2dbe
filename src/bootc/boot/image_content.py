"""Reads files of an image from the repository, and checks their content."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from bootc.errors import Error
from bootc.formats.digest import Digest
from bootc.formats.tree import Directory, External, Inline, Leaf
from bootc.formats.verity import VerityHasher

_CHUNK_BYTES = 1 << 20


class DamagedKernel(Error):
    """The stored kernel or initramfs differs from the one of the image."""


class ObjectSource(Protocol):
    """A store of the content of large files, for example the objects of a repository."""

    def open(self, digest: Digest) -> int:
        """Return a read-only descriptor of an object, which the caller closes."""


def size_of(leaf: Leaf) -> int:
    """Return the size in bytes of a regular file that :mod:`bootc.boot.image_kernel` found."""
    return content_of(leaf).size_bytes


def file_size(tree: Directory, path: str) -> int | None:
    """Return the size in bytes of a regular file of an image, or None if there is no such file."""
    leaf = tree.lookup(path)
    if not isinstance(leaf, Leaf) or not isinstance(leaf.content, External | Inline):
        return None
    return leaf.content.size_bytes


def open_content(leaf: Leaf, objects: ObjectSource) -> AbstractContextManager[BinaryIO]:
    """Open a regular file of an image for reading, without checking its content.

    Raises:
        OSError: it cannot be opened.
    """
    content = content_of(leaf)
    if isinstance(content, Inline):
        return io.BytesIO(content.data)
    return open(objects.open(content.digest), "rb")


def checked_chunks(leaf: Leaf, objects: ObjectSource, what: str) -> Iterator[bytes]:
    """Yield the content of a file of an image in pieces, and fail at its end if it is damaged.

    On a file system without fs-verity the repository does not notice damage, and neither does
    the firmware. The check is at the end, so the file is read only once. The caller gives
    the copy its final name only after that.

    Args:
        leaf: The file.
        objects: Where its content is.
        what: How the error names the file.

    Raises:
        DamagedKernel: the content is not the content that the image names.
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
    """Return the content of a regular file of an image, or the reference to it."""
    content = leaf.content
    assert isinstance(content, Inline | External), "not a regular file"
    return content
