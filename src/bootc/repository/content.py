"""What images and the files in them consist of, read from the store.

Apart from :mod:`bootc.repository.objects` and :mod:`bootc.repository.images`, which know
names and bytes: who opens a repository to look into its streams, as every command does,
needs nothing of trees and of EROFS.
"""

from __future__ import annotations

import errno

from bootc.errors import doing
from bootc.formats.digest import Digest
from bootc.formats.erofs.structs import MAX_IMAGE_BYTES
from bootc.formats.tree import External, Inline
from bootc.repository.objects import ObjectCorrupt, Objects
from bootc.repository.reachable import image_objects


def read_image(objects: Objects, image: Digest) -> bytes:
    """Return the bytes of an image.

    Raises:
        FileNotFoundError: there is no such image.
        VerityMissing, ObjectCorrupt: as :meth:`Objects.read`.
    """
    with doing(f"Reading image {image}"):
        return objects.read(image, limit=MAX_IMAGE_BYTES)


def objects_of(objects: Objects, image: Digest) -> frozenset[Digest]:
    """Return the objects an image refers to: what mounting it needs beside itself.

    Raises:
        FileNotFoundError: there is no such image.
        VerityMissing, ObjectCorrupt: as :meth:`Objects.read`.
        InvalidImage: it is no image.
    """
    data = read_image(objects, image)
    with doing(f"Reading image {image}"):
        return frozenset(Digest.from_hex(raw.hex()) for raw in image_objects(data))


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
    data = objects.read(content.digest, limit=limit)
    if len(data) != content.size_bytes:
        raise ObjectCorrupt(
            f"{objects.path_of(content.digest)} has {len(data)} bytes, "
            f"its image says {content.size_bytes}"
        )
    return data
