"""Carrying out plans, step by step, in their order.

Owns the action of each step. Promises: up to the commit point, a failing step ends the plan,
and no step before the commit point changes what boots. All steps that clean up are tried, even
if others failed. Each step can be repeated after an interruption.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import assert_never

from bootc.boot import mirrors
from bootc.boot.addons import remove_addon, write_addons
from bootc.boot.artifacts import remove_artifact
from bootc.boot.kernels import BootResource, publish_resource
from bootc.boot.menu import open_menu
from bootc.deploy.etc.apply import replace_etc
from bootc.deploy.host.boot_state import STAGED_MARKER_NAME
from bootc.deploy.host.session import HostAccess, HostSession, opened_to_change
from bootc.deploy.host.statedir import StateDir
from bootc.deploy.host.statedir_lifecycle import (
    create_state,
    remove_leftover,
    remove_state,
    set_state_aside,
)
from bootc.deploy.journal import JournalMessage
from bootc.deploy.plan.steps import (
    Announce,
    CollectObjects,
    CreateState,
    DiscardStagedMenu,
    ExchangeMenu,
    Plan,
    RecordOrigin,
    RefreshMenu,
    RemoveAddon,
    RemoveArtifact,
    RemoveEntry,
    RemoveLeftover,
    RemoveRecounted,
    RemoveState,
    RemoveTag,
    ReplaceEtc,
    SetPin,
    SetStateAside,
    SetTag,
    StartFinalizer,
    Step,
    SynchroniseMirrors,
    Withdraw,
    WriteAddons,
    WriteKernel,
    WriteStagedMenu,
)
from bootc.errors import Error, doing, one_line
from bootc.events import Message, Sink, stage
from bootc.formats.digest import Digest
from bootc.formats.tree import Directory
from bootc.fs import atomic
from bootc.fs.tree_write import OpenContent
from bootc.oci.names import manifest_id, tag_of
from bootc.printable import first_lines
from bootc.repository import gc

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Supplies:
    """The inputs of the steps of a plan.

    Attributes:
        etc: ``/etc`` of the image to deploy.
        resource: Its kernel or unified kernel image.
        open_content: Opens the content of files of either.
    """

    etc: Directory
    resource: BootResource | None
    open_content: OpenContent


@dataclass(frozen=True, slots=True)
class StepFailure:
    """A failed step of the clean-up, and the reason."""

    step: Step
    reason: str


def execute(
    plan: Plan,
    system: HostSession,
    sink: Sink,
    supplies: Supplies | None = None,
    *,
    messages: Iterable[JournalMessage] = (),
) -> tuple[StepFailure, ...]:
    """Carry out a plan. When it has taken effect, send its messages and show its notes.

    Args:
        plan: The plan.
        system: The system.
        sink: Told of progress, and of the notes.
        supplies: What the steps are made of.
        messages: For the journal. A plan without steps changes nothing, so it sends nothing.

    Returns:
        The failed steps of the clean-up.

    Raises:
        Error, OSError: a step up to the commit point failed. The next boot has not changed.
    """
    failures: list[StepFailure] = []
    for step in (*plan.before, plan.commit):
        if step is not None:
            _carry_out(step, system, sink, supplies)
    if plan.steps:
        # The unit bootc-status-updated.path watches the directory.
        with contextlib.suppress(OSError):
            os.utime(system.run.fileno())
    # Before the clean-up, which can be interrupted and does not change what boots.
    for message in messages if plan.steps else ():
        if not system.journal.send(message):
            break  # each further message would have to wait as well
    for step in plan.after:
        try:
            _carry_out(step, system, sink, supplies)
        except (Error, OSError) as exc:
            failures.append(StepFailure(step, one_line(exc)))
    for note in plan.notes:
        sink(Message(note))
    return tuple(failures)


def run(
    plan: Plan,
    system: HostAccess,
    sink: Sink,
    supplies: Supplies | None = None,
    *,
    dry_run: bool,
    messages: Iterable[JournalMessage] = (),
) -> None:
    """Carry out a plan, or with ``dry_run`` only show it.

    A dry run needs only a view of the system, and sends no messages to the journal. Clean-up
    that fails is a warning. For the arguments see :func:`execute`.

    Raises:
        Error, OSError: a step up to the commit point failed.
    """
    if dry_run:
        for line in (*plan.lines(), *plan.notes):
            sink(Message(line))
        return
    for failure in execute(plan, opened_to_change(system), sink, supplies, messages=messages):
        # The command has taken effect; an error would look as if it had not.
        _log.warning("could not %s: %s", failure.step, failure.reason)


def names_to_keep(step: CollectObjects) -> list[str]:
    """Return the images and streams that a collection keeps, if they exist."""
    return [
        *(image.hex for image in step.roots),
        *(manifest_id(manifest) for manifest in step.manifests),
    ]


def _carry_out(step: Step, system: HostSession, sink: Sink, supplies: Supplies | None) -> None:
    match step:
        case Withdraw():
            _withdraw(system)
        case Announce(deployment, locked):
            _announce(system, deployment, locked=locked)
        case StartFinalizer():
            system.services.start_finalizer()
        case WriteKernel() | CreateState() | ReplaceEtc():
            assert supplies is not None, "a plan that deploys an image needs its supplies"
            _write(step, system, sink, supplies)
        case RemoveState() | SetStateAside() | RemoveLeftover():
            _remove_state(system, step)
        case RecordOrigin(deployment, origin):
            with (
                doing(f"Recording the origin of deployment {deployment}"),
                StateDir.open(system.physical, deployment) as state,
            ):
                state.write_origin(origin)
        case WriteAddons() | RemoveAddon():
            _change_addons(step, system)
        case SetPin(deployment, pinned):
            with StateDir.open(system.physical, deployment) as state:
                state.set_pinned(pinned)
        case SetTag() | RemoveTag() | CollectObjects():
            _tidy_repository(step, system, sink)
        case (
            DiscardStagedMenu()
            | WriteStagedMenu()
            | ExchangeMenu()
            | RemoveEntry()
            | RemoveRecounted()
            | RefreshMenu()
            | SynchroniseMirrors()
            | RemoveArtifact()
        ):
            _change_menu(step, system)
        case _:
            assert_never(step)


def _withdraw(system: HostSession) -> None:
    with doing("Withdrawing the staged deployment"):
        if system.run.exists(STAGED_MARKER_NAME):
            system.run.unlink(STAGED_MARKER_NAME)


def _announce(system: HostSession, deployment: Digest, *, locked: bool) -> None:
    # Everything prepared must be on the disk before the announcement.
    system.sync()
    marker = {"depl_id": deployment.hex, "finalization_locked": locked}
    data = json.dumps(marker, separators=(",", ":")).encode()
    with doing(f"Announcing deployment {deployment}"):
        atomic.write_file(system.run, STAGED_MARKER_NAME, data, durable=False)


def _write(
    step: WriteKernel | CreateState | ReplaceEtc,
    system: HostSession,
    sink: Sink,
    supplies: Supplies,
) -> None:
    match step:
        case WriteKernel(deployment, _):
            with stage(sink, "kernel", "Writing the kernel"):
                assert supplies.resource is not None, "an image to deploy has a kernel"
                publish_resource(
                    system.boot, deployment, supplies.resource, system.repository.objects
                )
                mirrors.copy_kernel(system.boot, deployment)
        case CreateState(deployment, origin):
            with stage(sink, "state", "Writing the deployment's state"):
                create_state(
                    system.physical, supplies.etc, supplies.open_content, deployment, origin
                )
        case ReplaceEtc(deployment, merge):
            with (
                stage(sink, "etc", "Merging /etc"),
                StateDir.open(system.physical, deployment) as state,
            ):
                replace_etc(state.dir, merge.tree, supplies.open_content)
                # The record of an earlier attempt.
                state.clear_failure()
        case _:
            assert_never(step)


def _change_menu(
    step: DiscardStagedMenu
    | WriteStagedMenu
    | ExchangeMenu
    | RemoveEntry
    | RemoveRecounted
    | RefreshMenu
    | SynchroniseMirrors
    | RemoveArtifact,
    system: HostSession,
) -> None:
    menu = open_menu(system.boot)
    match step:
        case DiscardStagedMenu():
            menu.discard_staged()
        case WriteStagedMenu(order):
            menu.write_staged(order)
        case ExchangeMenu(first):
            # The files that the entries name must be on the disk before the entries can boot.
            system.sync()
            menu.commit(first)
        case RemoveEntry(item):
            menu.remove_entry(item)
        case RemoveRecounted(name):
            menu.remove_recounted(name)
        case RefreshMenu():
            menu.refresh()
        case SynchroniseMirrors():
            mirrors.synchronise(system.boot)
        case RemoveArtifact(artifact):
            mirrors.remove_artifact(system.boot, artifact)
            remove_artifact(system.boot, artifact)
        case _:
            assert_never(step)


def _change_addons(step: WriteAddons | RemoveAddon, system: HostSession) -> None:
    match step:
        case WriteAddons(artifact, home, files):
            write_addons(system.boot, home, files)
            if artifact is None:
                mirrors.copy_global_addons(system.boot)
            else:
                mirrors.copy_kernel(system.boot, artifact)
        case RemoveAddon(path):
            mirrors.remove_addon(system.boot, path)
            remove_addon(system.boot, path)
        case _:
            assert_never(step)


def _tidy_repository(
    step: SetTag | RemoveTag | CollectObjects, system: HostSession, sink: Sink
) -> None:
    streams = system.repository.streams
    match step:
        case SetTag(manifest):
            streams.set_ref(tag_of(manifest), manifest_id(manifest))
        case RemoveTag(name):
            with contextlib.suppress(FileNotFoundError):
                streams.remove_ref(name)
        case CollectObjects():
            # "keep", not "roots": a damaged staged image must not stop the collection.
            keep = names_to_keep(step)
            report = gc.collect(system.repository, keep=keep, wait=system.wait, sink=sink)
            for warning in first_lines(report.warnings):
                _log.warning("%s", warning)
            if report.failures:
                raise gc.NotCollected(report.failures)
        case _:
            assert_never(step)


def _remove_state(system: HostSession, step: RemoveState | SetStateAside | RemoveLeftover) -> None:
    match step:
        case RemoveState(deployment):
            mirrors.release(system.boot, deployment)
            remove_state(system.physical, deployment)
        case SetStateAside(deployment):
            set_state_aside(system.physical, deployment)
        case RemoveLeftover(name):
            remove_leftover(system.physical, name)
        case _:
            assert_never(step)
