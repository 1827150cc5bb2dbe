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
  link to its stream, and would take the healthy ones, too. Streams of configurations and
  manifests, and references, stay: a pull writes the former anew, and the latter keep
  everything else alive.

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
from bootc.printable import printable
from bootc.repository import layout
from bootc.repository.findings import Finding, Kind, Report
from bootc.repository.fsck import check
from bootc.repository.remeasure import ObjectChecker
from bootc.repository.repository import Repository
from bootc.repository.verity import Verity

#: Below the repository; unknown to composefs-rs.
QUARANTINE = "quarantine"
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
    #: Layers' streams that were set aside, by content id.
    set_aside: tuple[str, ...]
    #: Objects that are not there, and the streams and images that need them, as paths.
    needed_by: Mapping[Digest, tuple[str, ...]]
    #: What is wrong still. A pull heals those with an object to fetch.
    left: tuple[Finding, ...]

    def to_text(self) -> str:
        """Return this for people, a line for each thing."""
        lines = [f"quarantined: {digest}" for digest in self.quarantined]
        lines += [f"resealed: {digest}" for digest in self.resealed]
        lines += [f"set aside: {printable(name)}" for name in self.set_aside]
        for digest, paths in self.needed_by.items():
            lines.append(f"missing: {digest}")
            lines += [f"  needed by {printable(path)}" for path in paths]
        others = [finding for finding in self.left if finding.digest not in self.needed_by]
        lines += [f"left: {finding}" for finding in others]
        return "".join(f"{line}\n" for line in lines or ["nothing to repair"])

    def to_json(self) -> dict[str, object]:
        """Return this for programs."""
        return {
            "quarantined": [str(digest) for digest in self.quarantined],
            "resealed": [str(digest) for digest in self.resealed],
            "set_aside": list(self.set_aside),
            "needed_by": {str(digest): list(paths) for digest, paths in self.needed_by.items()},
            "left": [str(finding) for finding in self.left],
        }


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
    quarantined: list[Digest] = []
    resealed: list[Digest] = []
    of_objects = [finding for finding in report.findings if _is_of_object(finding)]
    left = [finding for finding in of_objects if finding.digest is None]
    with repository.alone(wait=wait, sink=sink), doing(f"Repairing {repository.dir.path}"):
        with repository.dir.open_dir(layout.OBJECTS) as store:
            checker = ObjectChecker(
                store, repository.algorithm, secure=repository.secure, verity=verity
            )
            for digest in {f.digest: None for f in of_objects if f.digest is not None}:
                found = checker.check(digest)
                if found is None:
                    continue
                if found.kind is Kind.OBJECT_VERITY_MISSING:
                    _reseal(repository, store, digest)
                    resealed.append(digest)
                elif found.kind in _DAMAGED:
                    _quarantine(repository.dir, found.path, digest.hex)
                    quarantined.append(digest)
                else:
                    left.append(found)
        repository.objects.flush()
        repository.sync()
        after = check(repository, sink, metadata_only=True, verity=verity)
        set_aside = _set_aside(repository.dir, after)
        repository.sync()
    after = check(repository, sink, metadata_only=True, verity=verity) if set_aside else after
    return Repaired(
        tuple(quarantined),
        tuple(resealed),
        set_aside,
        _needed_by(after),
        (*left, *after.findings),
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


def _quarantine(directory: Dir, path: str, name: str) -> None:
    """Move anything to a name nobody asks for; a link to an object stays one."""
    directory.ensure_dir(QUARANTINE, 0o700).close()
    free = target = f"{QUARANTINE}/{name}"
    number = 0
    while directory.exists(free):
        number += 1
        free = f"{target}.{number}"
    directory.rename(path, free)


def _set_aside(directory: Dir, report: Report) -> tuple[str, ...]:
    """Make layers that a pull would take for complete ones look absent."""
    layers = {f.path: f.kind for f in report.findings if f.path.startswith(_LAYER)}
    gone = []
    for path, kind in layers.items():
        name = path.removeprefix(f"{layout.STREAMS}/")
        if kind is Kind.MISSING_OBJECT_REF:
            directory.rename(path, _ASIDE + path.removeprefix(_LAYER))
        elif kind is Kind.STREAM_READ_FAILED:
            # Nothing can be found through it.
            _quarantine(directory, path, name)
        else:
            continue
        gone.append(name)
    return tuple(gone)


def _needed_by(report: Report) -> dict[Digest, tuple[str, ...]]:
    needed: dict[Digest, dict[str, None]] = {}
    for finding in report.findings:
        if finding.digest is not None:
            needed.setdefault(finding.digest, {})[finding.path] = None
    return {digest: tuple(paths) for digest, paths in needed.items()}
