"""Plans for the next boot: stage an image, hold it back, release it, drop it.

Pure. Staging promises an order: the kernel, the state and a complete menu are on the disk
before the deployment is announced, and the announcement is in memory only. A power cut at any
time before the shutdown exchanges the menus boots the old default. The plan drops a
previously staged deployment as late as possible, so an earlier failure costs nothing. Only if
the new kernel needs its space, that deployment is dropped first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bootc.boot.artifacts import Artifact
from bootc.boot.menu_compose import NewItem
from bootc.boot.menu_read import Item
from bootc.deploy.host.facts import Facts
from bootc.deploy.plan.steps import (
    Announce,
    CreateState,
    DiscardStagedMenu,
    Plan,
    RecordOrigin,
    RemoveArtifact,
    RemoveState,
    SetStateAside,
    StartFinalizer,
    Step,
    Withdraw,
    WriteKernel,
    WriteStagedMenu,
)
from bootc.errors import Error
from bootc.formats.digest import Digest
from bootc.formats.origin import Origin


class NothingStaged(Error):
    """The command needs a staged deployment, and there is none."""


@dataclass(frozen=True, slots=True)
class NewDeployment:
    """An image in the repository, about to be deployed.

    Attributes:
        item: Its menu entry.
        origin: The origin that is recorded for it.
        kernel_size_bytes: The size of its kernel; None if it shares an existing one.
        evict: Unused kernels that must be removed to make space.
        beside: New entries for the booted and the pinned deployments that lost theirs.
    """

    item: NewItem
    origin: Origin
    kernel_size_bytes: int | None
    evict: tuple[Artifact, ...] = ()
    beside: tuple[NewItem, ...] = ()


def plan_stage(facts: Facts, new: NewDeployment, *, locked: bool) -> Plan:
    """Stage a new deployment in place of the staged one. No existing deployment has its id.

    Args:
        facts: The system.
        new: The new deployment.
        locked: Announce it as downloaded only.
    """
    deployment = new.item.deployment
    steps: list[Step] = []
    given_up = {item.artifact for item in facts.staged.items} - {
        item.artifact for item in facts.active.items
    }
    if any(artifact.name in given_up for artifact in new.evict):
        # There is no space for both: the staged deployment is dropped first.
        steps += _withdraw(facts)
    steps += [RemoveArtifact(artifact) for artifact in new.evict]
    if deployment in facts.states or deployment in facts.illegible_states:
        # An interrupted or failed attempt left it, or a clean-up could not remove it.
        steps.append(SetStateAside(deployment))
    # The state first: ukiboot's kernel waits in its directory.
    steps.append(CreateState(deployment, new.origin))
    if new.kernel_size_bytes is not None:
        steps.append(WriteKernel(deployment, new.kernel_size_bytes))
    steps.append(StartFinalizer())
    if facts.booted.staged is not None and Withdraw() not in steps:
        steps.append(Withdraw())
    steps.append(WriteStagedMenu((new.item, *new.beside, *kept_items(facts))))
    return Plan(
        before=tuple(steps),
        commit=Announce(deployment, locked),
        after=tuple(RemoveState(old) for old in leftovers(facts) if old != deployment),
        notes=tuple(_dropped(facts, deployment)),
    )


def plan_announce(facts: Facts, *, locked: bool) -> Plan:
    """Release the staged deployment, or with ``locked`` hold it back.

    Raises:
        NothingStaged: there is no staged deployment.
    """
    staged = facts.staged_id()
    if staged is None:
        raise nothing_staged()
    marker = facts.booted.staged
    # Also if it was started before: somebody may have stopped the service since.
    start = None if locked else StartFinalizer()
    if marker is not None and marker.locked == locked:
        return Plan(commit=start)
    return Plan(before=() if start is None else (start,), commit=Announce(staged, locked))


def plan_cancel(facts: Facts) -> Plan:
    """Drop the staged deployment, or the remains of an update that was not finalized.

    Raises:
        NothingStaged: there is neither.
    """
    doomed = droppable(facts)
    if not doomed:
        raise nothing_staged()
    commit, *rest = _withdraw(facts)
    return Plan(commit=commit, after=(*rest, *(RemoveState(deployment) for deployment in doomed)))


def plan_record(facts: Facts, deployment: Digest, origin: Origin, *, locked: bool) -> Plan:
    """Record new metadata of an image whose tree is deployed already.

    If it is the booted deployment, that shall boot next: the staged deployment is dropped.
    """
    steps: list[Step] = []
    doomed: list[Digest] = []
    if deployment == facts.booted.image_id:
        doomed = droppable(facts)
        if facts.staged_id() is not None or doomed:
            steps += _withdraw(facts)
    else:
        steps += plan_announce(facts, locked=locked).steps
    return Plan(
        before=tuple(steps),
        commit=RecordOrigin(deployment, updated_origin(facts, deployment, origin)),
        after=tuple(RemoveState(old) for old in doomed),
    )


def updated_origin(facts: Facts, deployment: Digest, origin: Origin) -> Origin:
    """Return a new origin that keeps the other keys of the recorded one."""
    present = facts.origin(deployment)
    if present is None:
        return origin
    return dataclasses.replace(origin, record=present.record, extra=present.extra)


def kept_items(facts: Facts) -> Iterator[Item]:
    """Yield the entries that are kept beside a new one: of the booted and pinned deployments.

    If such an entry is lost, the entry that staging made again takes its place.
    """
    running = facts.booted.image_id
    booted = facts.active_item(running) or facts.staged_item(running)
    if booted is not None:
        yield booted
    known = {item.deployment for item in facts.active.items}
    anew = (item for item in facts.staged.items if item.deployment not in known)
    for item in (*facts.active.items, *anew):
        if item.deployment != running and facts.is_pinned(item.deployment):
            yield item


def leftovers(facts: Facts) -> list[Digest]:
    """Return deployments with state that only a staged menu could boot: staged now or earlier."""
    active = {item.deployment for item in facts.active.items}
    staged = facts.staged_id()
    return [
        deployment
        for deployment, state in facts.states.items()
        if deployment not in active
        and deployment != facts.booted.image_id
        and (deployment == staged or state.failure is not None)
        and not state.pinned
    ]


def droppable(facts: Facts) -> list[Digest]:
    """Return the deployments that are removed when an update is cancelled."""
    unannounced = facts.unannounced_id()
    return [*leftovers(facts), *([] if unannounced is None else [unannounced])]


def nothing_staged() -> NothingStaged:
    """Return the error of commands that need a staged deployment."""
    return NothingStaged("No staged deployment found", hint="stage one: bootc upgrade")


def _withdraw(facts: Facts) -> Sequence[Step]:
    # The announcement first: nobody may finalize a menu that is being replaced.
    marker: list[Step] = [] if facts.booted.staged is None else [Withdraw()]
    return [*marker, DiscardStagedMenu()]


def _dropped(facts: Facts, new: Digest) -> Iterator[str]:
    staged = facts.staged_id()
    if staged is not None and staged != new:
        yield f"The staged deployment {staged} is replaced."
    kept = {item.deployment for item in kept_items(facts)}
    for deployment in facts.bootable():
        if deployment not in kept:
            yield f"Deployment {deployment} leaves the menu with the next boot; pin it to keep it."
