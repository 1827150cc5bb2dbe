"""Finalizing: the command that a shutdown runs, and the record of why it failed."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator

from bootc.boot.artifacts import list_artifacts
from bootc.boot.menu import read_menu
from bootc.deploy.cleanup import clean_up
from bootc.deploy.etc.apply import image_etc
from bootc.deploy.etc.local import policy_of, read_local_etc
from bootc.deploy.execute import Supplies, run
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.model import Timestamp
from bootc.deploy.host.notes import FinalizeFailure
from bootc.deploy.host.session import HostSession, NotAllowed, NotBooted, open_host_session
from bootc.deploy.host.statedir import StateDir
from bootc.deploy.host.survey import survey
from bootc.deploy.journal import Event, Journal, JournalMessage, SystemdJournal
from bootc.deploy.plan.finalize import CannotFinalize, plan_finalize, staged_for_finalizing
from bootc.deploy.plan.messages import about_finalizing
from bootc.deploy.plan.room import with_room
from bootc.errors import Error, one_line
from bootc.events import Sink
from bootc.formats.digest import Digest

_log = logging.getLogger(__name__)


def finalize_at_shutdown(sink: Sink) -> None:
    """Open the running host and make the staged deployment the default.

    This is the command of the shutdown. It opens the host itself, because the journal must also
    hear of a host that cannot be opened: nothing can be put on record on its disks.

    Raises:
        NotAllowed, NotBooted: bootc did not boot this host, or the user may not change it. The
            journal hears nothing.
        Error, OSError: as :func:`~bootc.deploy.host.session.open_host_session` and
            :func:`finalize_staged`.
    """
    with contextlib.ExitStack() as stack:
        with _failure_reported(SystemdJournal()):
            system = stack.enter_context(open_host_session(sink))
        finalize_staged(system, sink)


def finalize_staged(system: HostSession, sink: Sink) -> None:
    """Make the staged deployment the default, if there is one.

    Raises:
        CannotFinalize, EtcConflict, Error, OSError: it could not be done. The old system stays
            the default. The reason is on record and in the journal.
    """
    with _failure_reported(system.journal):
        facts = survey(system, dry_run=False)
    marker = facts.booted.staged
    announced = None if marker is None else marker.image_id
    with _failure_reported(system.journal, announced), _failure_recorded(system, facts, announced):
        staged = staged_for_finalizing(facts)
        if staged is None:
            return
        _finalize(system, facts, staged, sink)
    try:
        clean_up(system, sink, repository=False)
    except (Error, OSError) as exc:
        # The next clean-up will do it; the machine is on its way down.
        _log.warning("cleaning the boot partition up failed: %s", one_line(exc))


def _finalize(system: HostSession, facts: Facts, staged: Digest, sink: Sink) -> None:
    item = facts.staged_item(staged)
    kernels = {artifact.name for artifact in list_artifacts(system.boot)}
    if item is not None and item.artifact not in kernels:
        raise CannotFinalize(
            f"the kernel of the staged deployment {staged} is gone from the boot partition",
            hint="stage it again: bootc upgrade",
        )
    with read_local_etc(system) as local:
        image = system.repository.images.first_present(facts.images_of(staged))
        etc = image_etc(system.repository.objects, image)
        plan = plan_finalize(facts, staged, local.merge(etc, policy_of(facts, staged)))
        plan = with_room(system, facts, plan)
        supplies = Supplies(etc, None, local.open_content)
        messages = about_finalizing(staged)
        run(plan, system, sink, supplies, dry_run=False, messages=messages)


@contextlib.contextmanager
def _failure_reported(journal: Journal, staged: Digest | None = None) -> Iterator[None]:
    """Send a failure of the block to the journal."""
    try:
        yield
    except (NotAllowed, NotBooted):
        raise
    except BaseException as exc:
        reason = "interrupted" if isinstance(exc, KeyboardInterrupt) else one_line(exc)
        text = f"Finalizing failed, and bootc status tells what boots next: {reason}"
        journal.send(JournalMessage(Event.FINALIZE_FAILED, text, staged))
        raise


@contextlib.contextmanager
def _failure_recorded(system: HostSession, facts: Facts, staged: Digest | None) -> Iterator[None]:
    """Record a failure of the block beside the staged deployment, unless that boots next."""
    try:
        yield
    except BaseException as exc:
        # Also when the service manager loses its patience, which interrupts.
        if staged is not None and not _is_finalized(system, facts, staged):
            _record_failure(system, staged, exc)
        raise


def _is_finalized(system: HostSession, facts: Facts, staged: Digest) -> bool:
    """Tell whether the menus are exchanged now."""
    # The facts are older: a step can fail, or be interrupted, after it exchanged the menus.
    menus = dataclasses.replace(
        facts,
        active=read_menu(system.boot, staged=False),
        staged=read_menu(system.boot, staged=True),
    )
    return menus.is_finalized(staged)


def _record_failure(system: HostSession, staged: Digest, exc: BaseException) -> None:
    reason = "it was interrupted" if isinstance(exc, KeyboardInterrupt) else one_line(exc)
    try:
        with StateDir.open(system.physical, staged) as state:
            state.write_failure(FinalizeFailure(reason, Timestamp.now()))
    except OSError as unrecorded:
        _log.error("the failure cannot be put on record: %s", one_line(unrecorded))
