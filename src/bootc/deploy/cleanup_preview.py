"""What a clean-up would remove from the repository, counted before it is done."""

from __future__ import annotations

from bootc.deploy.execute import names_to_keep
from bootc.deploy.plan.steps import CollectObjects, Plan, RemoveTag
from bootc.repository.gc import GcReport, collect
from bootc.repository.repository import Repository


def preview(plan: Plan, repository: Repository) -> GcReport | None:
    """Return what carrying out a plan will collect, or None where it collects nothing.

    Raises:
        UnreadableRoot: the collection would refuse to.
        OSError: the repository cannot be read.
    """
    collecting = [step for step in plan.steps if isinstance(step, CollectObjects)]
    if not collecting:
        return None
    # The plan changes tags before it collects.
    keep = [name for step in collecting for name in names_to_keep(step)]
    removed = [step.name for step in plan.steps if isinstance(step, RemoveTag)]
    return collect(repository, keep=keep, without=removed, dry_run=True)
