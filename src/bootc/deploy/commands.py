"""The commands that change the menu, and clean up after it: gather, plan, execute.

Each is the three of them in a row, and idempotent: what is so already is said and left.
"""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from bootc.boot import publish
from bootc.boot.publish import Artifact
from bootc.deploy import records
from bootc.deploy.etc.apply import image_etc
from bootc.deploy.etc.local import policy_of, read_local_etc
from bootc.deploy.execute import Supplies, execute
from bootc.deploy.finalize import (
    CannotFinalize,
    plan_finalize,
    staged_for_finalizing,
)
from bootc.deploy.gc import is_legible, plan_gc
from bootc.deploy.host.facts import CleanupFailure, Facts, FinalizeFailure
from bootc.deploy.host.gather import gather
from bootc.deploy.host.model import Timestamp
from bootc.deploy.host.session import ReadableSystem, System
from bootc.deploy.lost_entries import lost_kernels
from bootc.deploy.plan.reorder import plan_delete, plan_pin, plan_rollback
from bootc.deploy.plan.room import with_room
from bootc.deploy.plan.steps import CollectObjects, Plan, RemoveTag, SetTag
from bootc.errors import Error, one_line
from bootc.events import Message, Sink
from bootc.formats.digest import Digest, OciDigest
from bootc.oci.names import TAGS, manifest_of
from bootc.printable import printable
from bootc.repository import layout

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


def run(
    plan: Plan,
    system: ReadableSystem,
    sink: Sink,
    supplies: Supplies | None = None,
    *,
    dry_run: bool,
) -> None:
    """Carry out a plan, or only say what it is, which a view of the system suffices for.

    Where it fails to clean up, that is a warning.

    Raises:
        Error, OSError: a step up to the commit point failed.
    """
    if dry_run:
        for line in (*plan.lines(), *plan.notes):
            sink(Message(line))
        return
    assert isinstance(system, System), "a view of a system is for dry runs"
    for failure in execute(plan, system, sink, supplies):
        # What it was done for has taken effect, which this must not look like undoing.
        _log.warning("could not %s: %s", failure.step, failure.reason)


def rollback(system: ReadableSystem, sink: Sink, *, dry_run: bool = False) -> bool:
    """Let the rollback deployment boot next, or the booted one if that was done already.

    Returns:
        Whether the order of booting was changed.

    Raises:
        NoRollback: there is none.
        NoSpaceOnBoot: there is no room for another menu. Nothing has been touched.
    """
    facts = gather(system)
    plan = plan_rollback(facts)
    run(with_room(system, facts, plan), system, sink, dry_run=dry_run)
    return bool(plan.steps) and not dry_run


def delete_deployment(
    system: ReadableSystem, deployment: Digest, sink: Sink, *, dry_run: bool = False
) -> None:
    """Remove a deployment and all that only it needs.

    Raises:
        DeploymentNotFound, DeploymentInUse: it cannot be removed.
        NoSpaceOnBoot: there is no room for another menu. Nothing has been touched.
    """
    facts = gather(system)
    run(with_room(system, facts, plan_delete(facts, deployment)), system, sink, dry_run=dry_run)
    if not dry_run:
        collect_afterwards(system, sink)


def set_pin(
    system: ReadableSystem, deployment: Digest, sink: Sink, *, pinned: bool, dry_run: bool = False
) -> None:
    """Keep a deployment through updates and clean-ups, or no longer.

    Raises:
        DeploymentNotFound: there is none of that id.
    """
    run(plan_pin(gather(system), deployment, pinned=pinned), system, sink, dry_run=dry_run)


def finalize_staged(system: System, sink: Sink) -> Digest | None:
    """Make the staged deployment the default, and return it; None when there is none to.

    Raises:
        CannotFinalize, EtcConflict, Error, OSError: it could not be done. The old system stays
            the default, and the reason is on record.
    """
    facts = gather(system)
    marker = facts.booted.staged
    try:
        staged = staged_for_finalizing(facts)
        if staged is None:
            return None
        _finalize(system, facts, staged, sink)
    except BaseException as exc:
        # Also when the service manager loses its patience, which interrupts.
        if marker is not None and not gather(system).is_finalized(marker.image_id):
            interrupted = isinstance(exc, KeyboardInterrupt)
            reason = "it was interrupted" if interrupted else one_line(exc)
            _record_failure(system, marker.image_id, reason)
        raise
    try:
        collect_garbage(system, sink, repository=False)
    except (Error, OSError) as exc:
        # The next clean-up will do it; the machine is on its way down.
        _log.warning("cleaning the boot partition up failed: %s", one_line(exc))
    return staged


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
    return CleanupFailure(printable(reason, records.MAX_REASON_CHARS - 1), in_repository, _now())


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
        with system.physical.open_dir(os.path.dirname(layout.STATE_DEPLOY)) as directory:
            records.write_cleanup_failures(directory, found)
    except OSError as exc:
        _log.warning("%s", one_line(exc))


def _finalize(system: System, facts: Facts, staged: Digest, sink: Sink) -> None:
    item = facts.staged_item(staged)
    kernels = {artifact.name for artifact in publish.list_artifacts(system.boot)}
    if item is not None and item.artifact not in kernels:
        raise CannotFinalize(
            f"the kernel of the staged deployment {staged} is gone from the boot partition",
            hint="stage it again: bootc upgrade",
        )
    with read_local_etc(system) as local:
        etc = image_etc(system.repository.objects, staged)
        plan = plan_finalize(facts, staged, local.merge(etc, policy_of(facts, staged)))
        plan = with_room(system, facts, plan)
        supplies = Supplies(etc, None, local.open_content)
        run(plan, system, sink, supplies, dry_run=False)


def _record_failure(system: System, staged: Digest, reason: str) -> None:
    try:
        with system.physical.open_dir(layout.state_dir(staged.hex)) as state:
            records.write_failure(state, FinalizeFailure(reason, _now()))
    except OSError as exc:
        _log.error("the failure cannot be put on record: %s", one_line(exc))


def _now() -> Timestamp:
    return Timestamp(datetime.datetime.now(datetime.UTC).replace(microsecond=0))


def _tags(system: ReadableSystem) -> dict[str, OciDigest]:
    """Return bootc's own tags, by the names of their references."""
    # What others put there is no concern of a clean-up.
    refs = system.repository.streams.refs("oci", pass_over=True)
    return {
        name: manifest
        for name, content_id in refs.items()
        if name.startswith(TAGS) and (manifest := manifest_of(content_id)) is not None
    }
