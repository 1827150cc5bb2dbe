"""What a clean-up would remove from the repository, counted before it is done."""

from __future__ import annotations

from bootc.deploy.plan import CollectObjects, Plan, RemoveTag, SetTag
from bootc.oci.names import manifest_id
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
    images = {root for step in collecting for root in step.roots}
    roots = [image.hex for image in sorted(images, key=str) if repository.images.exists(image)]
    # The plan changes tags before it collects.
    roots += [manifest_id(step.manifest) for step in plan.steps if isinstance(step, SetTag)]
    removed = [step.name for step in plan.steps if isinstance(step, RemoveTag)]
    return collect(repository, roots=roots, without=removed, dry_run=True)
