"""Which deployments there are and which of them boots: roll back, delete, pin.

Each gathers facts, makes a plan and carries it out. Each is idempotent: a command that finds
everything as it should be says so and changes nothing.
"""

from __future__ import annotations

from bootc.deploy.cleanup import collect_afterwards
from bootc.deploy.execute import run
from bootc.deploy.host.gather import gather
from bootc.deploy.host.session import ReadableSystem
from bootc.deploy.plan.reorder import plan_delete, plan_pin, plan_rollback
from bootc.deploy.plan.room import with_room
from bootc.events import Sink
from bootc.formats.digest import Digest


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
