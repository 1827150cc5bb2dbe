"""Reading images, and the contents of files in them, from the store.

This is apart from :mod:`bootc.repository.objects` and :mod:`bootc.repository.images`, which
know only names and bytes: every command opens a repository to look into its streams, and
does not need to import trees and EROFS for that.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

from bootc.errors import doing
from bootc.formats.digest import Digest
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.erofs.structs import MAX_IMAGE_BYTES
from bootc.formats.tree import Directory, External, Inline
from bootc.formats.verity import VerityHasher
from bootc.repository.objects import ObjectCorrupt, Objects
from bootc.repository.reachable import HEAD_BYTES, image_objects, kind_of

_CHUNK_BYTES = 1 << 18


def read_image(objects: Objects, image: Digest) -> bytes:
    """Return the bytes of an image.

    Raises:
        FileNotFoundError: there is no such image.
        VerityMissing, ObjectCorrupt: as :meth:`Objects.read`.
    """
    with doing(f"Reading image {image}"):
        return objects.read(image, limit=MAX_IMAGE_BYTES)


def read_image_tree(objects: Objects, image: Digest, *, below: Iterable[str] = ()) -> Directory:
    """Return the tree of an image.

    Args:
        objects: The objects of the repository.
        image: The image.
        below: Read only what is at or below these paths, as
            :func:`~bootc.formats.erofs.reader.read_erofs` does; by default everything.

    Raises:
        FileNotFoundError: there is no such image.
        VerityMissing, ObjectCorrupt: as :meth:`Objects.read`.
        InvalidImage: the object is not an image.
    """
    data = read_image(objects, image)
    with doing(f"Reading image {image}"):
        return read_erofs(data, below=below)


def objects_of(objects: Objects, image: Digest) -> frozenset[Digest]:
    """Return the objects that an image refers to, which are needed to mount it.

    Raises:
        FileNotFoundError: there is no such image.
        VerityMissing, ObjectCorrupt: as :meth:`Objects.read`.
        InvalidImage: it is no image.
    """
    data = read_image(objects, image)
    with doing(f"Reading image {image}"):
        return frozenset(Digest.from_hex(raw.hex()) for raw in image_objects(data))


def read_referring(objects: Objects, digest: Digest) -> bytes | None:
    """Return the bytes of a stream or an image, or None for an object that is neither.

    An object that is neither is not kept in memory, whatever its size. It is read to its end
    and checked, because it may be a damaged stream.

    Raises:
        FileNotFoundError: there is no such object.
        VerityMissing, ObjectCorrupt: as :meth:`Objects.read`.
        OSError: EFBIG when it is larger than any stream or image.
    """
    with open(objects.open(digest), "rb", buffering=0) as file:
        kind = kind_of(os.pread(file.fileno(), HEAD_BYTES, 0))
    if kind is None:
        check_object(objects, digest)
        return None
    return objects.read(digest, limit=kind.value)


def object_chunks(objects: Objects, digest: Digest) -> Iterator[bytes]:
    """Yield the content of an object of any size, in pieces.

    Without fs-verity the content is not compared with the object's name.

    Raises:
        FileNotFoundError, VerityMissing, ObjectCorrupt: as :meth:`Objects.open`.
    """
    fd = objects.open(digest)
    with open(fd, "rb", buffering=0) as file, doing(f"Reading object {digest}"):
        while data := file.read(_CHUNK_BYTES):
            yield data


def check_object(objects: Objects, digest: Digest) -> None:
    """Read an object of any size to its end, and compare it with its name.

    Raises:
        FileNotFoundError: there is no such object.
        VerityMissing, ObjectCorrupt: as :meth:`Objects.read`.
        OSError: EIO among others, when fs-verity finds it damaged.
    """
    hasher = VerityHasher(digest.algorithm)
    for data in object_chunks(objects, digest):
        hasher.update(data)
    if hasher.digest() != digest:
        raise ObjectCorrupt(f"the content of {objects.path_of(digest)} is damaged")


def read_content(
    objects: Objects, content: Inline | External, *, limit: int | None = None
) -> bytes:
    """Return the content of a regular file of a tree.

    Raises:
        FileNotFoundError, VerityMissing, ObjectCorrupt: as :meth:`Objects.read`.
        OSError: EFBIG when it is larger than ``limit``.
    """
    if limit is not None and content.size_bytes > limit:
        raise OSError(errno.EFBIG, f"file is larger than {limit} bytes")
    if isinstance(content, Inline):
        return content.data
    if limit is not None:
        data = objects.read(content.digest, limit=limit)
        _check_size(objects, content, len(data))
        return data
    with open(objects.open(content.digest), "rb", buffering=0) as file:
        _check_size(objects, content, os.fstat(file.fileno()).st_size)
    return objects.read(content.digest, limit=content.size_bytes)


def _check_size(objects: Objects, content: External, size_bytes: int) -> None:
    if size_bytes != content.size_bytes:
        raise ObjectCorrupt(
            f"{objects.path_of(content.digest)} has {size_bytes} bytes, "
            f"its image says {content.size_bytes}"
        )
