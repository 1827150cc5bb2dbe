"""Splitstreams of a repository: objects that have a name of their own.

Owns: ``streams/<content id>``, the marks ``verified/<content id>``, and the references
``streams/refs/<name>``, which keep streams and all they refer to from garbage collection
(composefs, "Images and stream references"). Promises: a stream's link appears only after
everything stored before it is on the disk, and links change from old to new in one step.
"""

from __future__ import annotations

from bootc.errors import doing
from bootc.formats.digest import Digest
from bootc.formats.splitstream import MAX_STREAM_BYTES, check_stream_size
from bootc.fs.dir import Dir
from bootc.repository import layout
from bootc.repository.links import MAX_ENTRIES, BrokenReference, is_entry_name, parse_object_link
from bootc.repository.objects import Objects
from bootc.repository.refs import References, place_link, read_link


class Streams:
    """The streams of a repository, by content id (``oci-manifest-sha256:…`` and the like).

    Args:
        directory: The repository; belongs to the caller.
        objects: Its objects.
    """

    def __init__(self, directory: Dir, objects: Objects) -> None:
        self._dir = directory
        self._objects = objects
        self._references = References(directory, layout.STREAMS)

    def exists(self, content_id: str) -> bool:
        """Tell whether the stream and the object it consists of are there.

        Raises:
            BrokenReference: its link does not name an object.
        """
        try:
            return self._objects.exists(self.digest_of(content_id))
        except FileNotFoundError:
            return False

    def find(self, content_id: str) -> Digest | None:
        """Return the object a stream consists of, or None if no link leads to one that is there."""
        try:
            digest = self.digest_of(content_id)
        except (FileNotFoundError, BrokenReference):
            return None
        return digest if self._objects.exists(digest) else None

    def names(self) -> list[str]:
        """Return the content ids of all streams, sorted.

        Raises:
            OSError: EFBIG when there are more than :data:`MAX_ENTRIES`.
        """
        try:
            with self._dir.open_dir(layout.STREAMS) as streams:
                return [name for name in streams.names(MAX_ENTRIES) if name != layout.REFS]
        except (FileNotFoundError, NotADirectoryError):
            # A check of the repository reports what is in their place.
            return []

    def digest_of(self, content_id: str) -> Digest:
        """Return the object a stream consists of.

        Raises:
            FileNotFoundError: there is no such stream.
            BrokenReference: it is no link, or its link does not name an object.
        """
        path = self._path(content_id)
        where = f"{self._dir.path}/{path}"
        with doing(f"Looking up {content_id} in {self._dir.path}"):
            return parse_object_link(read_link(self._dir, path), where)

    def read(self, content_id: str) -> bytes:
        """Return the bytes of a stream, still encoded.

        Raises:
            FileNotFoundError, BrokenReference: as :meth:`digest_of`.
            VerityMissing, ObjectCorrupt: as :meth:`Objects.read`.
            OSError: EFBIG when it is larger than any stream.
        """
        digest = self.digest_of(content_id)
        with doing(f"Reading {content_id} in {self._dir.path}"):
            return self._objects.read(digest, limit=MAX_STREAM_BYTES)

    def write(self, content_id: str, data: bytes) -> Digest:
        """Store a stream under a content id, in place of an older one.

        Raises:
            StreamTooLarge: it is larger than readers accept.
            VerityMissing: the repository is secure and the file system cannot do fs-verity.
        """
        path = self._path(content_id)
        check_stream_size(len(data))
        digest = self._objects.put(data)
        with doing(f"Registering {content_id} in {self._dir.path}"):
            self._objects.flush()
            self._dir.sync()
            place_link(self._dir, path, layout.link_to_object(digest.hex), MAX_ENTRIES)
        return digest

    def verified(self, content_id: str) -> Digest | None:
        """Return the object that :meth:`set_verified` recorded for the stream."""
        path = f"{layout.VERIFIED}/{self._name(content_id)}"
        try:
            return parse_object_link(read_link(self._dir, path), path)
        except (FileNotFoundError, BrokenReference):
            return None

    def set_verified(self, content_id: str, digest: Digest) -> None:
        """Record that a stream's object was compared with its content id.

        The record may get lost; the stream is then compared again. Garbage collection removes
        the record together with the stream.
        """
        self._objects.require_writable()
        path = f"{layout.VERIFIED}/{self._name(content_id)}"
        place_link(self._dir, path, layout.link_to_object(digest.hex), MAX_ENTRIES)

    def set_ref(self, name: str, content_id: str) -> None:
        """Make ``streams/refs/<name>`` refer to a stream, which need not exist yet."""
        self._path(content_id)
        self._objects.require_writable()
        self._references.set(name, content_id)

    def remove_ref(self, name: str) -> None:
        """Remove ``streams/refs/<name>``; what it referred to stays until the next collection.

        Raises:
            FileNotFoundError: there is no such reference.
        """
        self._objects.require_writable()
        self._references.remove(name)

    def refs(self, prefix: str = "", *, pass_over: bool = False) -> dict[str, str]:
        """Return content ids by the names of the references in the directory ``prefix``.

        Names are complete: those of ``refs("oci")`` start with ``oci/``.

        Args:
            prefix: The directory; all references if left out.
            pass_over: Skip links that do not refer to a stream, with a warning.

        Raises:
            BrokenReference: a link there does not refer to a stream.
        """
        return self._references.all(prefix, pass_over=pass_over)

    def resolve(self, name: str) -> str:
        """Return the content id for a user's word: a content id, or ``refs/`` and a reference.

        Raises:
            FileNotFoundError: there is no such reference.
            BrokenReference: it refers to something that is not a stream.
        """
        prefix, slash, reference = name.partition("/")
        return self._references.get(reference) if slash and prefix == layout.REFS else name

    def _path(self, content_id: str) -> str:
        return layout.stream_path(self._name(content_id))

    def _name(self, content_id: str) -> str:
        if not is_entry_name(content_id):
            raise ValueError(f"{content_id!r} cannot name a stream")
        return content_id
