"""A damaged repository made fit for a pull to heal it.

Owns: what is done about findings. Promises:

- Alone: nobody else has the repository open meanwhile (exclusive lock), and every object
  is measured once more before it is touched. What is healthy stays as it is, and so does
  what cannot be judged (permissions, memory).
- No byte is destroyed. A damaged object is moved to ``quarantine/`` beside ``objects/``, a
  directory nobody looks into, garbage collection included; its owner may empty it.
- An intact object that only lacks fs-verity is stored again, with it.
- A layer whose stream names missing objects is set aside: its link gets a name that no
  pull takes for a layer, so that the next pull fetches this layer, and no other. Unlinking
  it would be worse: composefs-rs's garbage collection finds a layer's objects through any
  link to its stream, and would take the healthy ones, too.
- What is no link, or says nothing that a link says, goes to quarantine as well, and so does
  the link to a stream that makes no sense (:mod:`bootc.repository.relink`). Links to sound
  streams and references stay, for they keep everything else alive.

Running it again after an interruption finishes it. Heal with a pull of the images that
:attr:`Repaired.needed_by` leads to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from bootc.errors import doing
from bootc.events import Sink, null_sink
from bootc.formats.digest import Digest
from bootc.fs.dir import Dir
from bootc.kernel import fsverity
from bootc.repository import layout
from bootc.repository.fsck import check
from bootc.repository.fsck_report import Finding, Kind, Report
from bootc.repository.object_check import ObjectChecker
from bootc.repository.relink import LinkMender, moved_away
from bootc.repository.repository import Repository
from bootc.repository.sealing import Verity

_LAYER = f"{layout.STREAMS}/oci-layer-"
#: Where the link of an incomplete layer goes.
_ASIDE = f"{layout.STREAMS}/incomplete-oci-layer-"

#: Findings that condemn an object. Not among them: what could not be checked.
_DAMAGED = frozenset(
    {
        Kind.OBJECT_OPEN_FAILED,
        Kind.OBJECT_DIGEST_MISMATCH,
        Kind.OBJECT_VERITY_FAILED,
        Kind.UNEXPECTED_FILE_TYPE,
    }
)
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair did, and what is left to do."""

    #: Damaged objects, now in quarantine.
    quarantined: tuple[Digest, ...]
    #: Objects that have fs-verity again.
    resealed: tuple[Digest, ...]
    #: Streams that are incomplete or make no sense and were set aside, by content id.
    set_aside: tuple[str, ...]
    #: Objects that are not there, and the streams and images that need them, as paths.
    needed_by: Mapping[Digest, tuple[str, ...]]
    #: What is wrong still. A pull heals those with an object to fetch.
    left: tuple[Finding, ...]
    #: What is in quarantine besides objects, by its former path.
    moved: tuple[str, ...]
    #: Images and references whose links say what they should again.
    relinked: tuple[str, ...]


def repair(
    repository: Repository,
    report: Report,
    sink: Sink = null_sink,
    *,
    wait: bool = True,
    verity: Verity = fsverity,
) -> Repaired:
    """Put aside what is damaged, so that a pull can bring it back.

    Args:
        repository: What to repair; open for writing.
        report: What :func:`bootc.repository.fsck.check` found.
        sink: Told of waiting and of progress.
        wait: Wait until nobody else has the repository open.
        verity: The kernel's ioctls.

    Raises:
        LockedByOther: somebody else has it open, and ``wait`` is false.
        LockedHere: this process has another handle of it.
        OSError: the disk fails or is full. What was done so far stays done.
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
    """What was done about objects."""

    quarantined: tuple[Digest, ...]
    resealed: tuple[Digest, ...]
    left: tuple[Finding, ...]
    #: What was in the place of a directory of objects.
    moved: tuple[str, ...]


def _mend_objects(repository: Repository, report: Report, verity: Verity) -> _Objects:
    quarantined: list[Digest] = []
    resealed: list[Digest] = []
    moved: list[str] = []
    findings = [finding for finding in report.findings if _is_of_object(finding)]
    left = [finding for finding in findings if finding.digest is None and not _is_bucket(finding)]
    for finding in filter(_is_bucket, findings):
        # Something else than a directory, of objects of which there are none then.
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
            if found.kind is Kind.OBJECT_VERITY_MISSING:
                _reseal(repository, store, digest)
                resealed.append(digest)
            elif found.kind in _DAMAGED and moved_away(repository.dir, found.path, digest.hex):
                quarantined.append(digest)
            else:
                left.append(found)
    return _Objects(tuple(quarantined), tuple(resealed), tuple(left), tuple(moved))


def _is_bucket(finding: Finding) -> bool:
    return (
        finding.kind is Kind.UNEXPECTED_FILE_TYPE
        and finding.digest is None
        and finding.path.startswith(f"{layout.OBJECTS}/")
        and finding.path.count("/") == 1
    )


def _is_of_object(finding: Finding) -> bool:
    return finding.path.startswith(f"{layout.OBJECTS}/")


def _reseal(repository: Repository, store: Dir, digest: Digest) -> None:
    """Store an object's content again: what has no fs-verity is replaced."""
    fd = store.open_file(digest.object_path, os.O_RDONLY | os.O_NONBLOCK)
    with open(fd, "rb", buffering=0) as file, repository.objects.writer() as writer:
        while chunk := file.read(_COPY_BYTES):
            writer.write(chunk)
        writer.commit()


def _set_aside(directory: Dir, report: Report) -> tuple[str, ...]:
    """Make layers that a pull would take for complete ones look absent."""
    layers = {f.path: f.kind for f in report.findings if f.path.startswith(_LAYER)}
    gone = []
    for path, kind in layers.items():
        if kind is Kind.MISSING_OBJECT_REF:
            directory.rename(path, _ASIDE + path.removeprefix(_LAYER))
            gone.append(path.removeprefix(f"{layout.STREAMS}/"))
    return tuple(gone)


def _needed_by(report: Report) -> dict[Digest, tuple[str, ...]]:
    needed: dict[Digest, dict[str, None]] = {}
    for finding in report.findings:
        if finding.digest is not None:
            needed.setdefault(finding.digest, {})[finding.path] = None
    return {digest: tuple(paths) for digest, paths in needed.items()}
