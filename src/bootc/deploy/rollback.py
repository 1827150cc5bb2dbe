"""Which deployments there are and which of them boots: roll back, delete, pin.

Each command gathers facts, makes a plan and carries it out. All are idempotent: if there is
nothing to do, they say so and change nothing.
"""

from __future__ import annotations

from bootc.deploy.cleanup import collect_afterwards
from bootc.deploy.execute import run
from bootc.deploy.host.selection import find_deployment
from bootc.deploy.host.session import HostAccess
from bootc.deploy.host.survey import survey
from bootc.deploy.plan.messages import about_deletion, about_pin, about_rollback
from bootc.deploy.plan.reorder import plan_delete, plan_pin, plan_rollback
from bootc.deploy.plan.room import with_room
from bootc.events import Sink


def rollback(system: HostAccess, sink: Sink, *, dry_run: bool = False) -> None:
    """Let the rollback deployment boot next, or the booted one if that was done already.

    Raises:
        NoRollback: there is no rollback deployment.
        NoSpaceOnBoot: there is no room for another menu. Nothing has been touched.
    """
    facts = survey(system, dry_run=dry_run)
    plan = with_room(system, facts, plan_rollback(facts))
    run(plan, system, sink, dry_run=dry_run, messages=about_rollback(facts, plan))


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
