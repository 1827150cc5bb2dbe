"""EROFS images of a repository: objects that have a link in ``images/``.

Owns: ``images/<hex>`` (composefs, "Images and stream references"). Promises: when
:meth:`Images.add` returns, everything stored before it is on the disk and the
image can be found by its digest. Opening one for mounting, with its digest proved,
is :mod:`bootc.repository.mounting`.
"""

from __future__ import annotations

from collections.abc import Iterator

from bootc.errors import doing
from bootc.formats.digest import Digest
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.erofs.structs import MAX_IMAGE_BYTES
from bootc.formats.tree import Directory, External
from bootc.fs.atomic import replace_symlink
from bootc.fs.dir import Dir
from bootc.repository import layout
from bootc.repository.objects import Objects


class Images:
    """The images of a repository.

    Args:
        directory: The repository; belongs to the caller.
        objects: Its objects.
    """

    def __init__(self, directory: Dir, objects: Objects) -> None:
        self._dir = directory
        self._objects = objects

    def add(self, data: bytes) -> Digest:
        """Store an image and register it; registering it twice is fine.

        Raises:
            VerityMissing: the repository is secure and the file system cannot do fs-verity.
        """
        digest = self._objects.put(data)
        with doing(f"Registering image {digest} in {self._dir.path}"):
            self._objects.flush()
            self._dir.sync()
            self._dir.ensure_dir(layout.IMAGES).close()
            replace_symlink(
                self._dir, layout.image_path(digest.hex), layout.link_to_object(digest.hex)
            )
        return digest

    def exists(self, digest: Digest) -> bool:
        """Tell whether the image is registered."""
        return self._dir.exists(layout.image_path(digest.hex))

    def objects_of(self, digest: Digest) -> frozenset[Digest]:
        """Return the objects an image refers to: what mounting it needs beside itself.

        Raises:
            FileNotFoundError: there is no such image.
            VerityMissing, ObjectCorrupt: as :meth:`Objects.read`.
            InvalidImage: it is no image.
        """
        with doing(f"Reading image {digest}"):
            root = read_erofs(self._objects.read(digest, limit=MAX_IMAGE_BYTES))
            return frozenset(_external(root))

    def names(self) -> list[str]:
        """Return the digests of all registered images in hex, sorted."""
        try:
            with self._dir.open_dir(layout.IMAGES) as images:
                return [name for name in images.names() if name != layout.REFS]
        except FileNotFoundError:
            return []


def _external(root: Directory) -> Iterator[Digest]:
    pending = [root]
    while pending:
        for node in pending.pop().entries.values():
            if isinstance(node, Directory):
                pending.append(node)
            elif isinstance(node.content, External):
                yield node.content.digest
