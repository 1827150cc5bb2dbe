"""Plans that change the live menu: roll back, bring to the front, delete, pin.

Pure. Each plan changes the live menu in one step: it exchanges whole menus or removes one
entry. A change of the order always drops the staged deployment, because that was prepared for
the old order.
"""

from __future__ import annotations

import dataclasses

from bootc.boot.menu_read import Item
from bootc.deploy.host.facts import Facts
from bootc.deploy.plan.stage import plan_cancel, updated_origin
from bootc.deploy.plan.steps import (
    DiscardStagedMenu,
    ExchangeMenu,
    Plan,
    RecordOrigin,
    RemoveEntry,
    RemoveState,
    SetPin,
    Step,
    Withdraw,
    WriteStagedMenu,
)
from bootc.errors import Error
from bootc.formats.digest import Digest
from bootc.formats.origin import Origin

_UPSTREAM_KNOWS_NO_PINS = (
    "Upstream's program has no pins: if it updates or cleans this machine, it removes the "
    "deployment, and its rollback fails while the menu has three."
)


class NoRollback(Error):
    """There is no deployment to go back to."""


class DeploymentNotFound(Error):
    """There is no deployment of that id."""


class DeploymentInUse(Error):
    """The deployment cannot be deleted or pinned in its present state."""


def plan_rollback(facts: Facts) -> Plan:
    """Make the rollback deployment the default, or the booted one if it is the default already.

    Raises:
        NoRollback: there is no other deployment.
    """
    booted = facts.booted.image_id
    bootable = facts.bootable()
    others = [deployment for deployment in bootable if deployment != booted]
    if not others:
        raise NoRollback("No rollback available", hint="there is one after the next update")
    if bootable[0] != booted:
        if facts.active_item(booted) is None:
            # The booted deployment has lost its entry: there is nothing to exchange.
            notes = ["Next boot: rollback deployment"]
            if facts.booted.staged is None:
                return Plan(notes=tuple(notes))
            return _rewrite(facts, list(facts.active.items), notes)
        notes = ["notice: Reverting queued rollback state", "Next boot: current deployment"]
        return _to_front(facts, booted, notes)
    return _to_front(facts, others[0], ["Next boot: rollback deployment"])


def plan_front(facts: Facts, deployment: Digest, origin: Origin, *, locked: bool) -> Plan:
    """Make a deployment of the menu the default, because it has the requested image.

    With ``locked`` the user only wanted the image downloaded, and the order stays.
    """
    origin = updated_origin(facts, deployment, origin)
    if locked:
        note = f"The image is that of deployment {deployment}, which the menu has already."
        return Plan(commit=RecordOrigin(deployment, origin), notes=(note,))
    if facts.active.items[0].deployment == deployment and facts.booted.staged is None:
        note = f"The image is that of deployment {deployment}, which boots next already."
        return Plan(commit=RecordOrigin(deployment, origin), notes=(note,))
    plan = _to_front(
        facts,
        deployment,
        [
            f"The image is that of deployment {deployment}, which boots next with its own /etc.",
        ],
    )
    return dataclasses.replace(plan, before=(RecordOrigin(deployment, origin), *plan.before))


def plan_delete(facts: Facts, deployment: Digest) -> Plan:
    """Remove a deployment that is neither booted nor pinned.

    Raises:
        DeploymentNotFound: there is no deployment of that id.
        DeploymentInUse: it is booted or pinned, or it is the only entry of the menu.
    """
    if deployment == facts.booted.image_id:
        raise DeploymentInUse("Cannot delete currently booted deployment")
    if facts.is_pinned(deployment):
        raise DeploymentInUse(
            f"deployment {deployment} is pinned", hint=f"first: bootc unpin {deployment}"
        )
    item = facts.active_item(deployment)
    if item is None:
        if deployment == facts.staged_id():
            return plan_cancel(facts)
        if deployment in facts.states:
            return Plan(commit=RemoveState(deployment))
        raise DeploymentNotFound(f"Deployment ID not found: {deployment}")
    rest = [other for other in facts.active.items if other is not item]
    if not any(facts.origin(other.deployment) for other in rest):
        raise DeploymentInUse(
            f"deployment {deployment} is the only one in the menu; nothing would be left to boot"
        )
    if facts.active.items[0] is item:
        rest.sort(key=lambda other: other.deployment != facts.booted.image_id)
        return _rewrite(facts, rest, [], RemoveState(deployment))
    return Plan(commit=RemoveEntry(item), after=(RemoveState(deployment),))


def plan_pin(facts: Facts, deployment: Digest, *, pinned: bool) -> Plan:
    """Keep a deployment through updates and clean-ups, or stop keeping it.

    Raises:
        DeploymentNotFound: no entry boots it, so there is nothing to keep.
        DeploymentInUse: it is staged. The next update replaces it, and its ``/etc`` is not
            merged yet.
    """
    if deployment == facts.staged_id() and pinned:
        raise DeploymentInUse(
            f"deployment {deployment} is staged and was never booted",
            hint="pin it when it has been booted",
        )
    known = {*facts.bootable(), facts.booted.image_id}
    if deployment not in known and not (facts.is_pinned(deployment) and not pinned):
        raise DeploymentNotFound(f"Deployment ID not found: {deployment}")
    if facts.is_pinned(deployment) == pinned:
        state = "pinned already" if pinned else "not pinned"
        return Plan(notes=(f"Deployment {deployment} is {state}.",))
    # The staged menu was composed without it; finalizing composes the menu again.
    notes = (_UPSTREAM_KNOWS_NO_PINS,) if pinned else ()
    return Plan(commit=SetPin(deployment, pinned), notes=notes)


def _to_front(facts: Facts, deployment: Digest, notes: list[str]) -> Plan:
    order = sorted(facts.active.items, key=lambda item: item.deployment != deployment)
    return _rewrite(facts, order, notes)


def _rewrite(facts: Facts, order: list[Item], notes: list[str], *then: Step) -> Plan:
    staged = facts.staged_id()
    steps: list[Step] = []
    if facts.booted.staged is not None:
        # First, so that the shutdown does not exchange the menus again.
        steps.append(Withdraw())
    if staged is not None:
        notes = [
            *notes,
            f"The staged deployment {staged} is dropped; bootc upgrade stages it anew.",
        ]
    first = order[0].deployment
    steps += [DiscardStagedMenu(), WriteStagedMenu(tuple(order))]
    return Plan(before=tuple(steps), commit=ExchangeMenu(first), after=then, notes=tuple(notes))
