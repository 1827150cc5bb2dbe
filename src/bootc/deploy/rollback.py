"""Which deployments there are and which of them boots: roll back, delete, pin.

Each command gathers facts, makes a plan and carries it out. All are idempotent: if there is
nothing to do, they say so and change nothing.
"""

from __future__ import annotations

import dataclasses

from bootc.deploy.cleanup import collect_afterwards
from bootc.deploy.execute import run
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.selection import find_deployment
from bootc.deploy.host.session import HostAccess
from bootc.deploy.host.survey import survey
from bootc.deploy.plan.messages import about_deletion, about_pin, about_rollback
from bootc.deploy.plan.reorder import plan_delete, plan_pin, plan_rollback
from bootc.deploy.plan.room import with_room
from bootc.deploy.plan.steps import ExchangeMenu, Plan, RecordOrigin
from bootc.deploy.protection import check_counter, check_losses, protection_of, window_losses
from bootc.events import Sink
from bootc.formats.origin import Waiver


def rollback(
    system: HostAccess, sink: Sink, *, dry_run: bool = False, allow_weaker: bool = False
) -> None:
    """Let the rollback deployment boot next, or the booted one if that was done already.

    Args:
        system: The system.
        sink: Told of the outcome.
        dry_run: Only show the steps.
        allow_weaker: Accept a deployment below the minimum security version of the booted one.

    Raises:
        NoRollback: there is no rollback deployment.
        ProtectsLess: its security version is below the minimum. Nothing has been touched.
        WouldNotBoot: the counter in the TPM refuses its security version. Nothing has been touched.
        NoSpaceOnBoot: there is no room for another menu. Nothing has been touched.
    """
    facts = survey(system, dry_run=dry_run)
    plan = _inside_window(facts, plan_rollback(facts), allow_weaker=allow_weaker)
    plan = with_room(system, facts, plan)
    run(plan, system, sink, dry_run=dry_run, messages=about_rollback(facts, plan))


def _inside_window(facts: Facts, plan: Plan, *, allow_weaker: bool) -> Plan:
    """Check the deployment that a plan makes the default; record that the user accepted less.

    Raises:
        ProtectsLess, WouldNotBoot: as :func:`rollback`.
    """
    if not isinstance(plan.commit, ExchangeMenu) or plan.commit.first == facts.booted.image_id:
        return plan
    target, what = plan.commit.first, "the rollback deployment"
    origin, then = facts.origin(target), protection_of(facts, target)
    if origin is None or then is None:
        return plan
    check_counter(facts, then, what=what)
    if not check_losses(facts, window_losses(facts, target), allowed=allow_weaker, what=what):
        return plan
    recorded = RecordOrigin(target, origin.with_waiver(Waiver.WEAKER))
    return dataclasses.replace(plan, before=(recorded, *plan.before))


def delete_deployment(system: HostAccess, name: str, sink: Sink, *, dry_run: bool = False) -> None:
    """Remove a deployment and all that only it needs.

    Args:
        system: The system.
        name: The deployment, as :func:`~bootc.deploy.host.selection.find_deployment` takes it.
        sink: Told of the outcome.
        dry_run: Only show the steps.

    Raises:
        DeploymentNotFound, AmbiguousDeployment, DeploymentInUse: it cannot be removed.
        NoSpaceOnBoot: there is no room for another menu. Nothing has been touched.
    """
    facts = survey(system, dry_run=dry_run)
    deployment = find_deployment(facts, name)
    plan = with_room(system, facts, plan_delete(facts, deployment))
    run(plan, system, sink, dry_run=dry_run, messages=about_deletion(facts, plan, deployment))
    if not dry_run:
        collect_afterwards(system, sink)


def set_pin(
    system: HostAccess, name: str, sink: Sink, *, pinned: bool, dry_run: bool = False
) -> None:
    """Keep a deployment through updates and clean-ups, or stop keeping it.

    Args:
        system: The system.
        name: The deployment, as :func:`~bootc.deploy.host.selection.find_deployment` takes it.
        sink: Told of the outcome.
        pinned: Keep it.
        dry_run: Only show the steps.

    Raises:
        DeploymentNotFound, AmbiguousDeployment, DeploymentInUse: it cannot be pinned.
    """
    facts = survey(system, dry_run=dry_run)
    deployment = find_deployment(facts, name)
    plan = plan_pin(facts, deployment, pinned=pinned)
    run(plan, system, sink, dry_run=dry_run, messages=about_pin(deployment, pinned=pinned))
