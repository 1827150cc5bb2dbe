"""The check of a whole repository: objects, links, streams, images, ``meta.json``.

Owns: what the check looks at, and in which order (composefs, "fsck"). Promises: the check
changes nothing. Whatever is wrong with one thing becomes a finding and does not end the
check. Links are read and judged here, and never followed out of the repository. Memory
grows with the number of objects, not with their size, except for one stream or image at a
time, and their size is bounded.

Another process may pull an image during the check: a pull makes a reference only after the
object that it refers to, and the check looks at references after objects.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from bootc.errors import Error
from bootc.events import Sink, null_sink, stage
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.erofs.image import InvalidImage
from bootc.formats.erofs.structs import MAX_IMAGE_BYTES
from bootc.formats.splitstream import MAX_STREAM_BYTES, SplitstreamError, StreamReader
from bootc.kernel import fsverity
from bootc.repository import layout
from bootc.repository.fsck_report import Count, FsckFinding, FsckKind, FsckReport, why
from bootc.repository.imagecheck import check_image
from bootc.repository.links import (
    MAX_ENTRIES,
    BrokenReference,
    parse_object_link,
    parse_ref_target,
)
from bootc.repository.metadata import MAX_BYTES, Metadata
from bootc.repository.object_check import check_objects
from bootc.repository.objects import ObjectCorrupt
from bootc.repository.reachable import image_objects
from bootc.repository.repository import Repository
from bootc.repository.sealing import Verity, VerityMissing


def check(
    repository: Repository,
    sink: Sink = null_sink,
    *,
    metadata_only: bool = False,
    workers: int | None = None,
    verity: Verity = fsverity,
) -> FsckReport:
    """Check a repository and return what was found.

    Args:
        repository: The repository. It may be open for reading only.
        sink: Told of progress.
        metadata_only: Do not read the content of objects that are only contents of files.
        workers: How many threads hash; as many as there are processors if left out.
        verity: The kernel's ioctls.
    """
    checker = _Checker(repository)
    has_metadata = checker.metadata()
    objects = Count()
    if not metadata_only and repository.dir.exists(layout.OBJECTS):
        with repository.dir.open_dir(layout.OBJECTS) as store:
            objects, found = check_objects(
                store,
                repository.algorithm,
                sink,
                secure=repository.secure,
                verity=verity,
                workers=workers or len(os.sched_getaffinity(0)),
            )
        checker.findings += found
    with stage(sink, "references", "Checking streams and images"):
        streams = checker.entries(layout.STREAMS)
        images = checker.entries(layout.IMAGES)
    return FsckReport(has_metadata, objects, streams, images, tuple(checker.findings))


class _Checker:
    """Everything but the content of objects."""

    def __init__(self, repository: Repository) -> None:
        self.findings: list[FsckFinding] = []
        self._dir = repository.dir
        self._objects = repository.objects
        self._algorithm: Algorithm = repository.algorithm
        self._present: dict[bytes, bool] = {}

    def metadata(self) -> bool:
        """Check ``meta.json``; tell whether there is one."""
        try:
            found = Metadata.parse(self._dir.read_bytes(layout.META, MAX_BYTES), layout.META)
        except FileNotFoundError:
            return False
        except (Error, OSError) as exc:
            self._report(FsckKind.METADATA_PARSE_FAILED, layout.META, why(exc, layout.META))
            return True
        if found.algorithm is not self._algorithm:
            detail = f"{found.algorithm.label} instead of {self._algorithm.label}"
            self._report(FsckKind.METADATA_ALGORITHM_MISMATCH, layout.META, detail)
        return True

    def entries(self, area: str) -> Count:
        """Check all streams, or all images, and the references to them."""
        examine = self._stream if area == layout.STREAMS else self._image
        resolved = set()
        checked = corrupted = 0
        names = list(self._names(area))
        for name in names:
            if name == layout.REFS:
                continue
            path = f"{area}/{name}"
            checked += 1
            before = len(self.findings)
            digest = self._link(path)
            if digest is not None:
                resolved.add(name)
                examine(path, digest)
            corrupted += len(self.findings) > before
        if layout.REFS in names:
            self._references(f"{area}/{layout.REFS}", resolved)
        return Count(checked, corrupted)

    def _stream(self, path: str, digest: Digest) -> None:
        try:
            data = self._objects.read(digest, limit=MAX_STREAM_BYTES)
        except (Error, OSError) as exc:
            self._report(FsckKind.STREAM_OPEN_FAILED, path, why(exc, path))
            return
        try:
            stream = StreamReader(data)
            if stream.algorithm is not self._algorithm:
                raise SplitstreamError(f"digests are {stream.algorithm.hash_name}", 0)
            for _ in stream.chunks():
                pass
        except SplitstreamError as exc:
            self._report(FsckKind.STREAM_READ_FAILED, path, why(exc, path))
            return
        for needed in stream.object_refs:
            self._need(FsckKind.MISSING_OBJECT_REF, path, needed)
        for name, needed in stream.named_refs.items():
            self._need(FsckKind.MISSING_NAMED_REF, path, needed, f"ref {name}: ")

    def _image(self, path: str, digest: Digest) -> None:
        name = path.rpartition("/")[2]
        if name != digest.hex:
            self._report(FsckKind.IMAGE_INVALID, path, f"links to another object, {digest}")
            return
        try:
            data = self._objects.read(digest, limit=MAX_IMAGE_BYTES)
        except (ObjectCorrupt, VerityMissing) as exc:
            self._report(FsckKind.IMAGE_OPEN_FAILED, path, why(exc, path))
            return
        except OSError as exc:
            self._report(FsckKind.IMAGE_READ_FAILED, path, why(exc, path))
            return
        try:
            check_image(data)
            needs = image_objects(data)
        except InvalidImage as exc:
            self._report(FsckKind.IMAGE_INVALID, path, why(exc, path))
            return
        for raw in sorted(needs):
            needed = Digest(next(a for a in Algorithm if a.digest_size == len(raw)), raw)
            self._need(FsckKind.IMAGE_MISSING_OBJECT, path, needed)

    def _link(self, path: str) -> Digest | None:
        """Return the object a link in ``streams/`` or ``images/`` leads to, if it does."""
        target = self._target(path)
        if target is None:
            return None
        try:
            digest = parse_object_link(target, path)
        except BrokenReference as exc:
            self._report(FsckKind.BROKEN_SYMLINK, path, why(exc, path))
            return None
        before = len(self.findings)
        self._need(FsckKind.BROKEN_SYMLINK, path, digest)
        return digest if len(self.findings) == before else None

    def _references(self, prefix: str, resolved: set[str]) -> None:
        """Check the tree of links ``refs/``; ``resolved`` are the entries that exist."""
        pending = [prefix]
        while pending:
            path = pending.pop()
            try:
                info = self._dir.stat(path)
            except OSError as exc:
                self._report(FsckKind.STAT_FAILED, path, why(exc, path))
                continue
            if stat.S_ISDIR(info.st_mode):
                pending += [f"{path}/{name}" for name in reversed(list(self._names(path)))]
            elif not stat.S_ISLNK(info.st_mode) or path == prefix:
                self._report(FsckKind.UNEXPECTED_FILE_TYPE, path, "neither a directory nor a link")
            elif (target := self._target(path)) is not None:
                try:
                    entry = parse_ref_target(path.removeprefix(f"{prefix}/"), target, path)
                except BrokenReference as exc:
                    self._report(FsckKind.BROKEN_SYMLINK, path, why(exc, path))
                    continue
                if entry not in resolved:
                    self._report(FsckKind.BROKEN_SYMLINK, path, f"refers to {entry}, which is none")

    def _names(self, path: str) -> Iterator[str]:
        try:
            with self._dir.open_dir(path) as below:
                yield from below.names(MAX_ENTRIES)
        except FileNotFoundError:
            return
        except OSError as exc:
            wrong = exc.errno in (errno.ENOTDIR, errno.ELOOP)
            kind = FsckKind.UNEXPECTED_FILE_TYPE if wrong else FsckKind.STAT_FAILED
            self._report(kind, path, "not a directory" if wrong else why(exc, path))

    def _target(self, path: str) -> str | None:
        try:
            if not stat.S_ISLNK(self._dir.stat(path).st_mode):
                self._report(FsckKind.ENTRY_NOT_SYMLINK, path)
                return None
            return self._dir.readlink(path)
        except OSError as exc:
            self._report(FsckKind.STAT_FAILED, path, why(exc, path))
            return None

    def _need(self, kind: FsckKind, path: str, digest: Digest, context: str = "") -> None:
        """Report an object that is not there."""
        present = self._present.get(digest.raw)
        if present is None:
            try:
                present = self._objects.exists(digest)
            except OSError as exc:
                detail = f"{context}{digest}: {why(exc, digest.object_path)}"
                self._report(FsckKind.OBJECT_CHECK_FAILED, path, detail, digest)
                return
            self._present[digest.raw] = present
        if not present:
            self._report(kind, path, f"{context}{digest}", digest)

    def _report(
        self, kind: FsckKind, path: str, detail: str = "", digest: Digest | None = None
    ) -> None:
        self.findings.append(FsckFinding(kind, path, detail, digest))
