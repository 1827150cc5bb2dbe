"""Cleaning up: the removal of what no deployment needs, and the record of what would not go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from bootc.boot import publish
from bootc.boot.publish import Artifact
from bootc.deploy.execute import execute, names_to_keep, run
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.gather import gather
from bootc.deploy.host.model import Timestamp
from bootc.deploy.host.notes import MAX_REASON_CHARS, CleanupFailure
from bootc.deploy.host.session import ReadableSystem, System
from bootc.deploy.host.statedir import write_cleanup_failures
from bootc.deploy.lost_entries import lost_kernels
from bootc.deploy.plan.cleanup import is_legible, plan_gc
from bootc.deploy.plan.steps import CollectObjects, Plan, RemoveTag, SetTag
from bootc.errors import Error, one_line
from bootc.events import Sink
from bootc.formats.digest import OciDigest
from bootc.oci.names import TAGS, manifest_of
from bootc.printable import printable
from bootc.repository.gc import GcReport, collect
from bootc.repository.repository import Repository

_log = logging.getLogger(__name__)

#: What only a clean-up that includes the repository does.
_REPOSITORY_STEPS = (SetTag, RemoveTag, CollectObjects)
#: An error names so many failures, and counts the rest.
_MAX_NAMED = 3

_T = TypeVar("_T")


class CleanupIncomplete(Error):
    """Some of what no deployment needs could not be removed."""

    def __init__(self, failures: Sequence[CleanupFailure]) -> None:
        named = "; ".join(failure.reason for failure in failures[:_MAX_NAMED])
        rest = len(failures) - _MAX_NAMED
        super().__init__(named if rest <= 0 else f"{named}; and {rest} more, see bootc status")


def collect_garbage(
    system: ReadableSystem, sink: Sink, *, dry_run: bool = False, repository: bool = True
) -> Plan:
    """Remove what no deployment needs, and return the plan of it.

    Everything is tried, and what could not be removed is put on record for the status.

    Args:
        system: The system.
        sink: Told of the outcome.
        dry_run: Only say what would be removed.
        repository: Clean the repository as well.

    Raises:
        CleanupIncomplete: something could not be removed, or be looked at; everything else is
            gone.
    """
    facts, plan, failures = plan_cleanup(system, repository=repository)
    if dry_run:
        run(plan, system, sink, dry_run=True)
    else:
        assert isinstance(system, System), "a view of a system is for dry runs"
        failures += [
            _failure(failed.reason, in_repository=isinstance(failed.step, _REPOSITORY_STEPS))
            for failed in execute(plan, system, sink)
        ]
        if is_legible(facts.active):
            _record_cleanup(system, facts, failures, repository=repository)
    if failures:
        raise CleanupIncomplete(failures)
    return plan


def plan_cleanup(
    system: ReadableSystem, *, repository: bool
) -> tuple[Facts, Plan, list[CleanupFailure]]:
    """Plan the removal of what no deployment needs.

    Returns:
        What is known of the system, the plan, and what could not be looked at: that is left alone.
    """
    facts = gather(system)
    failures: list[CleanupFailure] = []
    artifacts, lost = _attempt(lambda: _kernels(system, facts), failures) or ((), frozenset())
    tags: dict[str, OciDigest] = {}
    if repository:
        tags = _attempt(lambda: _tags(system), failures, in_repository=True) or {}
    return facts, plan_gc(facts, artifacts, tags, repository=repository, lost=lost), failures


def collect_afterwards(system: ReadableSystem, sink: Sink) -> None:
    """Clean up after a command that has done its work, which this cannot undo by failing."""
    try:
        collect_garbage(system, sink)
    except (Error, OSError) as exc:
        _log.warning("cleaning up failed, and will be tried again next time: %s", one_line(exc))


def _kernels(system: ReadableSystem, facts: Facts) -> tuple[tuple[Artifact, ...], frozenset[str]]:
    """Return the kernels there are, and the names of those that stay without an entry."""
    artifacts = publish.list_artifacts(system.boot)
    return artifacts, lost_kernels(system.boot, facts, artifacts)


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
    system: System, facts: Facts, failures: Sequence[CleanupFailure], *, repository: bool
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


def _tags(system: ReadableSystem) -> dict[str, OciDigest]:
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
