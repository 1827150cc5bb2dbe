"""Repairing a damaged repository so that a pull can bring back what is missing.

Owns: what a repair does about findings. Promises:

- The repair holds the exclusive lock: no other process has the repository open. It measures
  every object again before it touches it. It leaves alone healthy objects, and objects that
  it cannot judge (permissions, memory).
- No byte is destroyed. A damaged object is moved to ``quarantine/`` beside ``objects/``. No
  program reads that directory, not even garbage collection; the administrator may empty it.
- An intact object that only lacks fs-verity is stored again, with fs-verity.
- A layer whose stream names missing objects is set aside: its link gets a name that no pull
  takes for a layer, so the next pull fetches this layer and no other. Removing the link would
  be worse: composefs-rs's garbage collection finds a layer's objects through any link to its
  stream, and would remove the healthy ones, too.
- Files that are no links, malformed links, and links to malformed streams are moved to
  quarantine as well (:mod:`bootc.repository.relink`). Links to intact streams, and
  references, are kept, because they keep everything else from garbage collection.

An interrupted repair can be repeated. Afterwards, pull the images that
:attr:`Repaired.needed_by` leads to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bootc.errors import doing
from bootc.events import Sink, null_sink
from bootc.formats.digest import Digest
from bootc.fs.dir import Dir
from bootc.kernel import fsverity
from bootc.repository import layout
from bootc.repository.fsck import check
from bootc.repository.fsck_report import FsckFinding, FsckKind, FsckReport
from bootc.repository.object_check import ObjectChecker
from bootc.repository.relink import LinkMender, moved_away
from bootc.repository.repository import Repository
from bootc.repository.sealing import Verity

_LAYER = f"{layout.STREAMS}/oci-layer-"
#: Prefix of the new name of an incomplete layer's link.
_ASIDE = f"{layout.STREAMS}/incomplete-oci-layer-"

#: Findings that prove an object damaged. An object that could not be checked is not proved so.
_DAMAGED = frozenset(
    {
        FsckKind.OBJECT_OPEN_FAILED,
        FsckKind.OBJECT_DIGEST_MISMATCH,
        FsckKind.OBJECT_VERITY_FAILED,
        FsckKind.UNEXPECTED_FILE_TYPE,
    }
)
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Repaired:
    """The result of a repair."""

    #: Damaged objects, now in quarantine.
    quarantined: tuple[Digest, ...]
    #: Objects that have fs-verity again.
    resealed: tuple[Digest, ...]
    #: Incomplete or malformed streams that were set aside, by content id.
    set_aside: tuple[str, ...]
    #: Missing objects, each with the paths of the streams and images that need it.
    needed_by: Mapping[Digest, tuple[str, ...]]
    #: Findings that remain. A pull heals those with an object to fetch.
    left: tuple[FsckFinding, ...]
    #: Other files that are in quarantine now, by their former paths.
    moved: tuple[str, ...]
    #: Images and references whose links were corrected.
    relinked: tuple[str, ...]


def repair(
    repository: Repository,
    report: FsckReport,
    sink: Sink = null_sink,
    *,
    wait: bool = True,
    verity: Verity = fsverity,
) -> Repaired:
    """Move damaged objects and links aside, so that a pull can bring them back.

    Args:
        repository: The repository; open for writing.
        report: The report of :func:`bootc.repository.fsck.check`.
        sink: Receives progress, and a message while this waits.
        wait: Wait until no other process has the repository open.
        verity: The kernel's ioctls.

    Raises:
        LockedByOther: another process has it open, and ``wait`` is false.
        LockedHere: this process has another handle of it.
        OSError: the disk fails or is full. Repairs made so far are kept.
    """
    repository.objects.require_writable()
    with repository.alone(wait=wait, sink=sink), doing(f"Repairing {repository.dir.path}"):
        objects = _mend_objects(repository, report, verity)
        repository.objects.flush()
        repository.sync()
        after = check(repository, sink, metadata_only=True, verity=verity)
        links = LinkMender(repository, verity).mend(after.findings)
        if links.relinked or links.moved or links.streams:
            after = check(repository, sink, metadata_only=True, verity=verity)
        incomplete = _set_aside(repository.dir, after)
        repository.sync()
    if incomplete:
        after = check(repository, sink, metadata_only=True, verity=verity)
    return Repaired(
        objects.quarantined,
        objects.resealed,
        (*links.streams, *incomplete),
        _needed_by(after),
        (*objects.left, *after.findings),
        (*objects.moved, *links.moved),
        links.relinked,
    )


@dataclass(frozen=True, slots=True)
class _Objects:
    """The result of repairing objects."""

    quarantined: tuple[Digest, ...]
    resealed: tuple[Digest, ...]
    left: tuple[FsckFinding, ...]
    #: Files that were in the place of a directory of objects.
    moved: tuple[str, ...]


def _mend_objects(repository: Repository, report: FsckReport, verity: Verity) -> _Objects:
    quarantined: list[Digest] = []
    resealed: list[Digest] = []
    moved: list[str] = []
    findings = [finding for finding in report.findings if _is_of_object(finding)]
    left = [finding for finding in findings if finding.digest is None and not _is_bucket(finding)]
    for finding in filter(_is_bucket, findings):
        # A file is in the place of a directory of objects.
        if moved_away(repository.dir, finding.path) is None:
            left.append(finding)
        else:
            moved.append(finding.path)
    with repository.dir.open_dir(layout.OBJECTS) as store:
        checker = ObjectChecker(
            store, repository.algorithm, secure=repository.secure, verity=verity
        )
        for digest in {f.digest: None for f in findings if f.digest is not None}:
            found = checker.check(digest)
            if found is None:
                continue
            if found.kind is FsckKind.OBJECT_VERITY_MISSING:
                _reseal(repository, store, digest)
                resealed.append(digest)
            elif found.kind in _DAMAGED and moved_away(repository.dir, found.path, digest.hex):
                quarantined.append(digest)
            else:
                left.append(found)
    return _Objects(tuple(quarantined), tuple(resealed), tuple(left), tuple(moved))


def _is_bucket(finding: FsckFinding) -> bool:
    return (
        finding.kind is FsckKind.UNEXPECTED_FILE_TYPE
        and finding.digest is None
        and finding.path.startswith(f"{layout.OBJECTS}/")
        and finding.path.count("/") == 1
    )


def _is_of_object(finding: FsckFinding) -> bool:
    return finding.path.startswith(f"{layout.OBJECTS}/")


def _reseal(repository: Repository, store: Dir, digest: Digest) -> None:
    """Store an object's content again, with fs-verity, in place of the object without."""
    fd = store.open_regular(digest.object_path)
    with open(fd, "rb", buffering=0) as file, repository.objects.writer() as writer:
        while chunk := file.read(_COPY_BYTES):
            writer.write(chunk)
        writer.commit()


def _set_aside(directory: Dir, report: FsckReport) -> tuple[str, ...]:
    """Rename the links of incomplete layers, so that a pull fetches these layers again."""
    layers = {f.path: f.kind for f in report.findings if f.path.startswith(_LAYER)}
    gone = []
    for path, kind in layers.items():
        if kind is FsckKind.MISSING_OBJECT_REF:
            directory.rename(path, _ASIDE + path.removeprefix(_LAYER))
            gone.append(path.removeprefix(f"{layout.STREAMS}/"))
    return tuple(gone)


def _needed_by(report: FsckReport) -> dict[Digest, tuple[str, ...]]:
    needed: dict[Digest, dict[str, None]] = {}
    for finding in report.findings:
        if finding.digest is not None:
            needed.setdefault(finding.digest, {})[finding.path] = None
    return {digest: tuple(paths) for digest, paths in needed.items()}
