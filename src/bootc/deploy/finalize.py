"""Finalizing: the command that a shutdown runs, and the record of why it failed."""

from __future__ import annotations

import logging

from bootc.boot import publish
from bootc.deploy.cleanup import collect_garbage
from bootc.deploy.etc.apply import image_etc
from bootc.deploy.etc.local import policy_of, read_local_etc
from bootc.deploy.execute import Supplies, run
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.gather import gather
from bootc.deploy.host.model import Timestamp
from bootc.deploy.host.notes import FinalizeFailure
from bootc.deploy.host.session import System
from bootc.deploy.host.statedir import StateDir
from bootc.deploy.plan.finalize import CannotFinalize, plan_finalize, staged_for_finalizing
from bootc.deploy.plan.room import with_room
from bootc.errors import Error, one_line
from bootc.events import Sink
from bootc.formats.digest import Digest

_log = logging.getLogger(__name__)


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
        with StateDir.open(system.physical, staged) as state:
            state.write_failure(FinalizeFailure(reason, Timestamp.now()))
    except OSError as exc:
        _log.error("the failure cannot be put on record: %s", one_line(exc))
