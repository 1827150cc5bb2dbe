"""The commands that change the menu, and clean up after it: gather, plan, execute.

Each is the three of them in a row, and idempotent: what is so already is said and left.
"""

from __future__ import annotations

import datetime
import logging

from bootc.boot import publish
from bootc.deploy import records
from bootc.deploy.etc.apply import image_etc
from bootc.deploy.execute import Supplies, execute
from bootc.deploy.facts import Facts, FinalizeFailure
from bootc.deploy.finalize import (
    CannotFinalize,
    plan_finalize,
    staged_for_finalizing,
)
from bootc.deploy.gather import gather
from bootc.deploy.gc import plan_gc
from bootc.deploy.lost import lost_kernels
from bootc.deploy.merging import policy_of, read_local_etc
from bootc.deploy.model import Timestamp
from bootc.deploy.ordering import plan_delete, plan_pin, plan_rollback
from bootc.deploy.plan import Plan
from bootc.deploy.room import with_room
from bootc.deploy.system import ReadableSystem, System
from bootc.errors import Error, one_line
from bootc.events import Message, Sink
from bootc.formats.digest import Digest, OciDigest
from bootc.oci.names import TAGS, manifest_of
from bootc.repository import layout

_log = logging.getLogger(__name__)


def run(
    plan: Plan,
    system: ReadableSystem,
    sink: Sink,
    supplies: Supplies | None = None,
    *,
    dry_run: bool,
) -> None:
    """Carry out a plan, or only say what it is, which a view of the system suffices for.

    Raises:
        Error, OSError: a step failed.
    """
    if dry_run:
        for line in (*plan.lines(), *plan.notes):
            sink(Message(line))
        return
    assert isinstance(system, System), "a view of a system is for dry runs"
    execute(plan, system, sink, supplies)


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

    Args:
        system: The system.
        sink: Told of the outcome.
        dry_run: Only say what would be removed.
        repository: Clean the repository as well.
    """
    facts, artifacts = gather(system), publish.list_artifacts(system.boot)
    plan = plan_gc(
        facts,
        artifacts,
        _tags(system),
        repository=repository,
        lost=lost_kernels(system.boot, facts, artifacts),
    )
    run(plan, system, sink, dry_run=dry_run)
    return plan


def collect_afterwards(system: ReadableSystem, sink: Sink) -> None:
    """Clean up after a command that has done its work, which this cannot undo by failing."""
    try:
        collect_garbage(system, sink)
    except (Error, OSError) as exc:
        _log.warning("cleaning up failed, and will be tried again next time: %s", one_line(exc))


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
        execute(plan, system, sink, Supplies(etc, None, local.open_content))


def _record_failure(system: System, staged: Digest, reason: str) -> None:
    now = Timestamp(datetime.datetime.now(datetime.UTC).replace(microsecond=0))
    try:
        with system.physical.open_dir(layout.state_dir(staged.hex)) as state:
            records.write_failure(state, FinalizeFailure(reason, now))
    except OSError as exc:
        _log.error("the failure cannot be put on record: %s", one_line(exc))


def _tags(system: ReadableSystem) -> dict[str, OciDigest]:
    """Return bootc's own tags, by the names of their references."""
    refs = system.repository.streams.refs("oci")
    return {
        name: manifest
        for name, content_id in refs.items()
        if name.startswith(TAGS) and (manifest := manifest_of(content_id)) is not None
    }
