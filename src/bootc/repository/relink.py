"""Repairing the links of a damaged repository, or moving them away.

Owns: the repair of findings that are not about objects. Promises: files are moved to
``quarantine/`` and never lost. A link is corrected only if its name determines its target;
nothing is guessed. A file that cannot be moved does not stop the repair of others.

The name of an image determines its object. A reference of an unusual form refers to the last
component of its target, as in composefs-rs. The name of a stream determines nothing: a pull
makes the link again. A reference to a missing entry is kept for that pull.

A link to a malformed image is kept as well: a machine may boot from it.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass

from bootc.formats.digest import Digest, DigestError
from bootc.formats.splitstream import MAX_STREAM_BYTES
from bootc.fs.dir import Dir
from bootc.repository import layout
from bootc.repository.fsck_report import FsckFinding, FsckKind
from bootc.repository.links import (
    MAX_ENTRIES,
    MAX_REFERENCES,
    BrokenReference,
    is_entry_name,
    parse_object_link,
    parse_ref_target,
    ref_target,
)
from bootc.repository.object_check import ObjectChecker
from bootc.repository.refs import place_link, quarantine, read_link
from bootc.repository.repository import Repository
from bootc.repository.sealing import Verity

#: Errors that only concern the file to move: it is immutable, a mount point, or belongs to
#: another user.
IMMOVABLE = frozenset({errno.EPERM, errno.EACCES, errno.EBUSY, errno.EXDEV})
_AREAS = (layout.STREAMS, layout.IMAGES)
#: Prefix of the streams whose links a pull makes again.
_OURS = f"{layout.STREAMS}/oci-"


@dataclass(frozen=True, slots=True)
class Mended:
    """The result of mending links; paths are below the repository."""

    #: Files and links that were moved to quarantine.
    moved: tuple[str, ...]
    relinked: tuple[str, ...]
    #: Content ids of malformed streams, whose links are in quarantine.
    streams: tuple[str, ...]


def moved_away(directory: Dir, path: str, name: str | None = None) -> str | None:
    """Move a file to quarantine and return its new path, or None if it cannot be moved.

    Raises:
        OSError: the disk fails or is full, or ``quarantine`` is no directory.
    """
    try:
        return quarantine(directory, path, name)
    except OSError as exc:
        if exc.errno not in IMMOVABLE:
            raise
        return None


class LinkMender:
    """Mends the links of a repository that no other process has open.

    Args:
        repository: Open for writing.
        verity: The kernel's ioctls.
    """

    def __init__(self, repository: Repository, verity: Verity) -> None:
        self._repository = repository
        self._dir = repository.dir
        self._verity = verity
        self._moved: list[str] = []
        self._relinked: list[str] = []

    def mend(self, findings: Iterable[FsckFinding]) -> Mended:
        """Repair the links that these findings are about; the findings must be fresh.

        Raises:
            OSError: the disk fails or is full. Repairs made so far are kept.
        """
        condemned = {f.path: f.kind for f in findings if self._condemned(f)}
        streams = []
        # Parents come before their children.
        for path, kind in sorted(condemned.items()):
            if not self._dir.exists(path):
                continue
            if path.split("/")[1:2] == [layout.REFS] and self._reference(path):
                self._relinked.append(path)
            elif moved_away(self._dir, path) is None:
                continue  # it stays a finding
            elif kind in (FsckKind.STREAM_READ_FAILED, FsckKind.STREAM_OPEN_FAILED):
                streams.append(path.removeprefix(f"{layout.STREAMS}/"))
            else:
                self._moved.append(path)
                if self._image(path):
                    self._relinked.append(path)
        return Mended(tuple(self._moved), tuple(self._relinked), tuple(streams))

    def _condemned(self, finding: FsckFinding) -> bool:
        area, _, name = finding.path.partition("/")
        if area not in _AREAS:
            return False
        match finding.kind:
            case FsckKind.ENTRY_NOT_SYMLINK | FsckKind.UNEXPECTED_FILE_TYPE:
                return True
            case FsckKind.BROKEN_SYMLINK:
                # A pull will bring the missing object, or the entry of a reference.
                return finding.digest is None and not self._waits(area, name)
            case FsckKind.IMAGE_INVALID:
                return self._names_another(name)
            case FsckKind.STREAM_READ_FAILED:
                return finding.path.startswith(_OURS)
            case FsckKind.STREAM_OPEN_FAILED:
                return finding.path.startswith(_OURS) and self._is_too_large(name)
            case _:
                return False

    def _waits(self, area: str, name: str) -> bool:
        prefix, slash, reference = name.partition("/")
        if prefix != layout.REFS or not slash:
            return False
        path = f"{area}/{name}"
        try:
            parse_ref_target(reference, read_link(self._dir, path), path)
        except (BrokenReference, FileNotFoundError):
            return False
        return True

    def _names_another(self, name: str) -> bool:
        path = layout.image_path(name)
        try:
            return parse_object_link(read_link(self._dir, path), path).hex != name
        except (BrokenReference, FileNotFoundError):
            return False

    def _is_too_large(self, name: str) -> bool:
        stream = self._repository.streams.find(name)
        if stream is None:
            return False
        info = self._dir.stat(f"{layout.OBJECTS}/{stream.object_path}")
        return info.st_size > MAX_STREAM_BYTES

    def _reference(self, path: str) -> bool:
        """Rewrite a reference whose target names an entry in an unusual form."""
        area, _, below = path.partition(f"/{layout.REFS}/")
        try:
            entry = read_link(self._dir, path).rpartition("/")[2]
        except BrokenReference:
            return False
        if not below or not is_entry_name(entry) or not self._dir.exists(f"{area}/{entry}"):
            return False
        place_link(self._dir, path, ref_target(below, entry), MAX_REFERENCES)
        return True

    def _image(self, path: str) -> bool:
        """Link an image to its object, if that exists and is intact."""
        area, _, name = path.partition("/")
        try:
            image = Digest.from_hex(name) if area == layout.IMAGES else None
        except DigestError:
            return False
        if image is None or image.algorithm is not self._repository.algorithm:
            return False
        with self._dir.open_dir(layout.OBJECTS) as store:
            checker = ObjectChecker(
                store,
                image.algorithm,
                secure=self._repository.secure,
                verity=self._verity,
            )
            if checker.check(image) is not None:
                return False
        place_link(self._dir, path, layout.link_to_object(image.hex), MAX_ENTRIES)
        return True
