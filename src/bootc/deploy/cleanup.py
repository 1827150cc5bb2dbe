"""Cleaning up: removing what no deployment needs, and recording what could not be removed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bootc.boot.artifacts import Artifact, list_artifacts, list_global_addons
from bootc.deploy.execute import execute, names_to_keep, run
from bootc.deploy.global_addons import needed_addons
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.gather import gather
from bootc.deploy.host.model import Timestamp
from bootc.deploy.host.notes import MAX_REASON_CHARS, CleanupFailure
from bootc.deploy.host.session import HostAccess, HostSession, opened_to_change
from bootc.deploy.host.statedir import write_cleanup_failures
from bootc.deploy.host.survey import survey
from bootc.deploy.journal import Event, JournalMessage
from bootc.deploy.lost_entries import lost_kernels
from bootc.deploy.plan.cleanup import is_legible, plan_gc
from bootc.deploy.plan.steps import CollectObjects, Plan, RemoveTag, SetTag, Step
from bootc.errors import Error, one_line
from bootc.events import Sink
from bootc.formats.digest import OciDigest
from bootc.oci.names import TAGS, manifest_of
from bootc.printable import printable
from bootc.repository.gc import GcReport, collect
from bootc.repository.repository import Repository

_log = logging.getLogger(__name__)

#: Steps that only a clean-up of the repository has.
_REPOSITORY_STEPS = (SetTag, RemoveTag, CollectObjects)
#: An error names at most this many failures, and counts the rest.
_MAX_NAMED = 3

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Collection:
    """What a collection of garbage removed, or would remove.

    Attributes:
        plan: Its steps.
        counted: What it collects from the repository; None if it does not collect there, or if
            that could not be counted.
    """

    plan: Plan
    counted: GcReport | None

    @property
    def removals(self) -> tuple[Step, ...]:
        """The steps that remove something, except the collection of objects."""
        return tuple(s for s in self.plan.steps if not isinstance(s, CollectObjects | SetTag))

    @property
    def removes_anything(self) -> bool:
        """Whether there was garbage."""
        counted = self.counted
        return bool(self.removals) or (
            counted is not None
            and bool(counted.objects_removed or counted.images_pruned or counted.streams_pruned)
        )


class CleanupIncomplete(Error):
    """Some of what no deployment needs could not be removed.

    ``collection`` is the collection of which this is the outcome.
    """

    def __init__(
        self, failures: Sequence[CleanupFailure], collection: Collection | None = None
    ) -> None:
        named = "; ".join(failure.reason for failure in failures[:_MAX_NAMED])
        rest = len(failures) - _MAX_NAMED
        super().__init__(named if rest <= 0 else f"{named}; and {rest} more, see bootc status")
        self.collection = collection


def collect_garbage(
    system: HostAccess, sink: Sink, *, dry_run: bool = False, repository: bool = True
) -> Collection:
    """Remove what no deployment needs: the command.

    Everything is tried. What could not be removed is put on record for the status.

    Args:
        system: The system.
        sink: Told of the outcome.
        dry_run: Only show what would be removed.
        repository: Clean the repository as well.

    Raises:
        CleanupIncomplete: something could not be removed, or be looked at; everything else is
            gone.
        Error, OSError: in a dry run, the garbage of the repository cannot be counted.
    """
    facts = survey(system, dry_run=dry_run)
    plan, failures = _plan(system, facts, repository=repository)
    if dry_run:
        run(plan, system, sink, dry_run=True)
        collection = Collection(plan, preview(plan, system.repository))
    else:
        collection = Collection(plan, _counted(plan, system.repository))
        changing = opened_to_change(system)
        failures = _carry_out(changing, facts, plan, failures, sink, repository=repository)
        if collection.removes_anything:
            text = "Removed what no deployment needs"
            changing.journal.send(JournalMessage(Event.GARBAGE_COLLECTED, text))
    if failures:
        raise CleanupIncomplete(failures, collection)
    return collection


def clean_up(system: HostSession, sink: Sink, *, repository: bool = True) -> None:
    """Remove what no deployment needs any more, at the end of a command that changed the host.

    Raises:
        CleanupIncomplete: as :func:`collect_garbage`.
    """
    # Not the facts of the command: it has changed the host since it gathered them.
    facts = gather(system)
    plan, failures = _plan(system, facts, repository=repository)
    failures = _carry_out(system, facts, plan, failures, sink, repository=repository)
    if failures:
        raise CleanupIncomplete(failures)


def collect_afterwards(system: HostAccess, sink: Sink) -> None:
    """Clean up after a command that has taken effect. Failing to do so is only a warning."""
    try:
        clean_up(opened_to_change(system), sink)
    except (Error, OSError) as exc:
        _log.warning("cleaning up failed, and will be tried again next time: %s", one_line(exc))


def _plan(
    system: HostAccess, facts: Facts, *, repository: bool
) -> tuple[Plan, list[CleanupFailure]]:
    """Return the plan, and what could not be looked at: the plan leaves that alone."""
    failures: list[CleanupFailure] = []
    found = _attempt(lambda: _kernels(system, facts, repository=repository), failures)
    artifacts, lost = found or ((), frozenset())
    tags: dict[str, OciDigest] = {}
    if repository:
        tags = _attempt(lambda: _tags(system), failures, in_repository=True) or {}
    return plan_gc(facts, artifacts, tags, repository=repository, lost=lost), failures


def _carry_out(
    system: HostSession,
    facts: Facts,
    plan: Plan,
    failures: Sequence[CleanupFailure],
    sink: Sink,
    *,
    repository: bool,
) -> list[CleanupFailure]:
    """Carry out a plan, record all failures for the status, and return them."""
    failures = [
        *failures,
        *(
            _failure(failed.reason, in_repository=isinstance(failed.step, _REPOSITORY_STEPS))
            for failed in execute(plan, system, sink)
        ),
    ]
    if is_legible(facts.active):
        _record_cleanup(system, facts, failures, repository=repository)
    return failures


def _kernels(
    system: HostAccess, facts: Facts, *, repository: bool
) -> tuple[tuple[Artifact, ...], frozenset[str]]:
    """Return the kernels there are, and the names of those that stay without an entry."""
    artifacts = list_artifacts(system.boot)
    kept = lost_kernels(system.boot, facts, artifacts)
    if not repository:
        # Reading the layers of all images would delay a shutdown.
        return artifacts, kept
    addons = list_global_addons(system.boot)
    kept |= needed_addons(system.repository, facts, addons)
    return (*artifacts, *addons), kept


def _attempt(
    read: Callable[[], _T], failures: list[CleanupFailure], *, in_repository: bool = False
) -> _T | None:
    """Read what a clean-up may do without: what is not known, it leaves alone."""
    try:
        return read()
    except (Error, OSError) as exc:
        failures.append(_failure(one_line(exc), in_repository=in_repository))
        return None


def _failure(reason: str, *, in_repository: bool) -> CleanupFailure:
    text = printable(reason, MAX_REASON_CHARS - 1)
    return CleanupFailure(text, in_repository, Timestamp.now())


def _record_cleanup(
    system: HostSession, facts: Facts, failures: Sequence[CleanupFailure], *, repository: bool
) -> None:
    """Put on record what could not be removed, each thing with the time when that was new."""
    known = {(known.reason, known.in_repository): known for known in facts.cleanup_failures}
    found = [known.get((new.reason, new.in_repository), new) for new in failures]
    if not repository:
        # These were not tried.
        found += [failure for failure in facts.cleanup_failures if failure.in_repository]
    if tuple(found) == facts.cleanup_failures:
        return
    try:
        write_cleanup_failures(system.physical, found)
    except OSError as exc:
        _log.warning("%s", one_line(exc))


def _tags(system: HostAccess) -> dict[str, OciDigest]:
    """Return bootc's own tags, by the names of their references."""
    # What others put there is no concern of a clean-up.
    refs = system.repository.streams.refs("oci", pass_over=True)
    return {
        name: manifest
        for name, content_id in refs.items()
        if name.startswith(TAGS) and (manifest := manifest_of(content_id)) is not None
    }


def preview(plan: Plan, repository: Repository) -> GcReport | None:
    """Return what carrying out a plan will collect, or None where it collects nothing.

    Raises:
        UnreadableRoot: the collection would refuse to.
        OSError: the repository cannot be read.
    """
    collecting = [step for step in plan.steps if isinstance(step, CollectObjects)]
    if not collecting:
        return None
    # The plan changes tags before it collects.
    keep = [name for step in collecting for name in names_to_keep(step)]
    removed = [step.name for step in plan.steps if isinstance(step, RemoveTag)]
    return collect(repository, keep=keep, without=removed, dry_run=True)


def _counted(plan: Plan, repository: Repository) -> GcReport | None:
    """Return the preview, or None if there is none: the collection itself then says why."""
    try:
        return preview(plan, repository)
    except (Error, OSError):
        return None
