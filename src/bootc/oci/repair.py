"""Images of a damaged repository made fit for a pull to heal them.

Owns: what is done about streams that are sound, and not what their names say; the rest is
:mod:`bootc.repository.repair`'s part, which comes first. Promises:

- Alone: nobody else has the repository open meanwhile, and a stream is compared once more
  before it is touched.
- Nothing is removed. The link of a wrong stream gets another name, ``wrong-<content id>``, by
  which no pull finds it; references to it follow, so that everything it leads to stays until
  the image is pulled again. Images that were made of it stay as well: machines boot by them.

Running it again after an interruption finishes it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from bootc.errors import doing
from bootc.events import Sink, null_sink
from bootc.formats.digest import Digest
from bootc.fs.dir import Dir
from bootc.oci.contents import WRONG, Contents, named_streams
from bootc.oci.fsck import OciReport, check_images
from bootc.oci.names import Kind
from bootc.oci.stored import tag_names
from bootc.repository import layout
from bootc.repository.fsck import check
from bootc.repository.fsck_report import Finding
from bootc.repository.links import BrokenReference
from bootc.repository.repair import Repaired, repair
from bootc.repository.repository import Repository

_ASIDE = "wrong-"


@dataclass(frozen=True, slots=True)
class RepairedImages:
    """What a repair of a repository and its images did, and what is left to do."""

    #: None where nothing was wrong with the repository itself.
    repository: Repaired | None
    #: Streams that were not what their names say, by content id.
    set_aside: tuple[str, ...]
    #: Tags of images that a pull has to heal.
    pull_again: tuple[str, ...]
    #: What is wrong still.
    left: tuple[Finding, ...]


def repair_images(
    repository: Repository, report: OciReport, sink: Sink = null_sink, *, wait: bool = True
) -> RepairedImages:
    """Put aside what is damaged or wrong, so that a pull can bring it back.

    Args:
        repository: What to repair; open for writing.
        report: What :func:`bootc.oci.fsck.check_images` found.
        sink: Told of waiting and of progress.
        wait: Wait until nobody else has the repository open.

    Raises:
        LockedByOther: somebody else has it open, and ``wait`` is false.
        LockedHere: this process has another handle of it.
        OSError: the disk fails or is full. What was done so far stays done.
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
    pull_again = dict.fromkeys(f.path for f in report.findings if f.path in tags)
    after = check_images(repository, check(repository, metadata_only=True), contents=contents)
    return RepairedImages(repaired, set_aside, tuple(pull_again), after.findings)


def _set_aside(repository: Repository, contents: Contents, wrong: set[Digest]) -> list[str]:
    """Give links to wrong streams another name; what is right under its own keeps it."""
    gone = []
    for kind in Kind:
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
    with contextlib.suppress(FileNotFoundError):
        directory.unlink(f"{layout.VERIFIED}/{name}")
    # A reference that is not one was left by the repair before, and keeps nothing.
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
