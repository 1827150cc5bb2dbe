"""Repair of the images in a damaged repository, so that a pull can heal them.

This module handles sound streams that do not hold what their names say.
:mod:`bootc.repository.repair` handles everything else and runs first. The repair promises:

- It runs alone: no other process has the repository open, and it compares a stream again before
  it touches it.
- It removes nothing. It renames the link of a wrong stream to ``wrong-<content id>``, where no
  pull finds it. References follow the new name, so everything that the stream leads to is kept
  until the image is pulled again. EROFS images of a wrong layer are kept too: machines boot them.
- Running it again after an interruption finishes it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from bootc.errors import doing
from bootc.events import Sink, null_sink
from bootc.formats.digest import Digest
from bootc.fs.dir import Dir
from bootc.oci.contents import WRONG, Contents, named_streams
from bootc.oci.fsck import OciFsckReport, check_images
from bootc.oci.names import StreamKind
from bootc.oci.tags import tag_names
from bootc.repository import layout
from bootc.repository.fsck import check
from bootc.repository.fsck_report import FsckFinding
from bootc.repository.links import BrokenReference
from bootc.repository.repair import Repaired, repair
from bootc.repository.repository import Repository

_ASIDE = "wrong-"


@dataclass(frozen=True, slots=True)
class RepairedImages:
    """What a repair of a repository and its images did, and what remains to do."""

    #: None if the repository itself was sound.
    repository: Repaired | None
    #: Content ids of the streams that the repair set aside.
    set_aside: tuple[str, ...]
    #: Tags of the images that the user has to pull again.
    pull_again: tuple[str, ...]
    #: Findings that the repair could not mend.
    left: tuple[FsckFinding, ...]


def repair_images(
    repository: Repository, report: OciFsckReport, sink: Sink = null_sink, *, wait: bool = True
) -> RepairedImages:
    """Set damaged and wrong streams aside, so that a pull can bring them back.

    Args:
        repository: The repository; open for writing.
        report: The report of :func:`bootc.oci.fsck.check_images`.
        sink: Receives messages about waiting, and progress.
        wait: Wait until no other process has the repository open.

    Raises:
        LockedByOther: another process has it open, and ``wait`` is false.
        LockedHere: this process has another handle of it.
        OSError: the disk fails or is full. Repairs that were made so far are kept.
    """
    repository.objects.require_writable()
    repaired = None
    if not report.repository.ok:
        repaired = repair(repository, report.repository, sink, wait=wait)
    wrong = {finding.digest for finding in report.findings if finding.digest is not None}
    contents = Contents(repository)
    set_aside: tuple[str, ...] = ()
    if wrong:
        with repository.alone(wait=wait, sink=sink), doing(f"Repairing {repository.dir.path}"):
            set_aside = tuple(_set_aside(repository, contents, wrong))
            repository.sync()
    tags = tag_names(repository)
    after = check_images(repository, check(repository, metadata_only=True), contents=contents)
    # An image can lack a layer only now: its configuration names the right layer, but the name of
    # the layer led to a wrong stream, which the repair has set aside.
    findings = (*report.findings, *after.findings)
    pull_again = dict.fromkeys(finding.path for finding in findings if finding.path in tags)
    return RepairedImages(repaired, set_aside, tuple(pull_again), after.findings)


def _set_aside(repository: Repository, contents: Contents, wrong: set[Digest]) -> list[str]:
    """Rename the links to wrong streams, except those under which the stream is right."""
    gone = []
    for kind in StreamKind:
        for name, stream, digest in list(named_streams(repository, kind)):
            if stream not in wrong:
                continue
            try:
                contents.compare(kind, stream, digest)
            except WRONG:
                _rename(repository, name)
                gone.append(name)
    return gone


def _rename(repository: Repository, name: str) -> None:
    directory = repository.dir
    aside = _free_name(directory, _ASIDE + name)
    directory.rename(layout.stream_path(name), layout.stream_path(aside))
    # A directory in the place of a mark marks nothing.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
        directory.unlink(f"{layout.VERIFIED}/{name}")
    # The repair of the repository has left references that are broken; they keep nothing.
    with contextlib.suppress(BrokenReference):
        for reference, entry in repository.streams.refs().items():
            if entry == name:
                repository.streams.set_ref(reference, aside)


def _free_name(directory: Dir, name: str) -> str:
    free = name
    number = 0
    while directory.exists(layout.stream_path(free)):
        number += 1
        free = f"{name}.{number}"
    return free
