"""EROFS images of a repository: objects that have a link in ``images/``.

Owns: ``images/<hex>`` and the references ``images/refs/<name>``, which keep images and
their objects from garbage collection (composefs, "Images and stream references").
Promises: when :meth:`Images.add` returns, everything stored before it is on the disk
and the image can be found by its digest. A name always resolves to the object that the
image's digest names. :mod:`bootc.repository.content` reads the bytes of an image;
:mod:`bootc.repository.mounting` opens one for mounting and proves its digest.
"""

from __future__ import annotations

from collections.abc import Sequence

from bootc.errors import doing
from bootc.formats.digest import Digest, DigestError
from bootc.fs.dir import Dir
from bootc.repository import layout
from bootc.repository.links import MAX_ENTRIES, BrokenReference, is_ref_name
from bootc.repository.objects import Objects
from bootc.repository.refs import References, place_link


class Images:
    """The images of a repository.

    Args:
        directory: The repository; belongs to the caller.
        objects: Its objects.
    """

    def __init__(self, directory: Dir, objects: Objects) -> None:
        self._dir = directory
        self._objects = objects
        self._references = References(directory, layout.IMAGES)

    def add(self, data: bytes) -> Digest:
        """Store an image and register it; registering it twice is fine.

        Raises:
            VerityMissing: the repository is secure and the file system cannot do fs-verity.
        """
        digest = self._objects.put(data)
        with doing(f"Registering image {digest} in {self._dir.path}"):
            self._objects.flush()
            self._dir.sync()
            path, target = layout.image_path(digest.hex), layout.link_to_object(digest.hex)
            place_link(self._dir, path, target, MAX_ENTRIES)
        return digest

    def exists(self, digest: Digest) -> bool:
        """Tell whether the image is registered."""
        return self._dir.exists(layout.image_path(digest.hex))

    def first_present(self, candidates: Sequence[Digest]) -> Digest:
        """Return the first of these images that the repository has, as a boot takes it.

        If it has none, return the first: whoever reads it gets an error that names it.
        """
        for digest in candidates:
            if self.exists(digest) and self._objects.exists(digest):
                return digest
        return candidates[0]

    def set_ref(self, name: str, digest: Digest) -> None:
        """Make ``images/refs/<name>`` refer to an image that is registered."""
        self._objects.require_writable()
        self._references.set(name, digest.hex)

    def refs(self, prefix: str = "") -> dict[str, Digest]:
        """Return images by the complete names of the references in the directory ``prefix``.

        Raises:
            BrokenReference: a link refers to something that is not an image.
        """
        return {
            name: self._referred(name, entry)
            for name, entry in self._references.all(prefix).items()
        }

    def resolve(self, name: str) -> Digest:
        """Return the image a user means: its digest in hex, or a reference's name.

        A name may begin with ``refs/``, and has to where it looks like a digest.

        Raises:
            ImageNotFound: there is no such image.
            BrokenReference: the reference refers to something that is not an image.
        """
        reference = name.removeprefix(f"{layout.REFS}/")
        try:
            digest = Digest.from_hex(name)
        except DigestError:
            if is_ref_name(reference):
                try:
                    return self._referred(reference, self._references.get(reference))
                except FileNotFoundError:
                    pass
        else:
            if self.exists(digest):
                return digest
        # Only here: the other commands start faster without the code that mounts images.
        from bootc.repository.mounting import ImageNotFound

        raise ImageNotFound(f"{self._dir.path} has no image {name}")

    def names(self) -> list[str]:
        """Return the digests of all registered images in hex, sorted."""
        try:
            with self._dir.open_dir(layout.IMAGES) as images:
                return [name for name in images.names(MAX_ENTRIES) if name != layout.REFS]
        except FileNotFoundError:
            return []

    def _referred(self, name: str, entry: str) -> Digest:
        try:
            return Digest.from_hex(entry)
        except DigestError as exc:
            where = f"{self._dir.path}/{layout.IMAGES}/{layout.REFS}/{name}"
            raise BrokenReference(f"{where} links to {entry[:200]!r}, which is no image") from exc
