"""Space on the boot partition: what a command must remove before it can write.

Promises: the space is computed before anything is changed, also in a dry run. No removed
kernel boots a deployment of the menu, the booted deployment or a pinned one, and only as many
kernels are removed as needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from bootc.boot.artifacts import Artifact, list_artifacts
from bootc.boot.menu import open_menu
from bootc.boot.menu_compose import NewItem, compose_menu
from bootc.boot.menu_read import Item
from bootc.boot.scheme import BootDirs
from bootc.boot.space import (
    SPARE_CLUSTERS,
    beside_menu,
    exchange_clusters,
    free_space,
    plan_menu_space,
    plan_space,
    removal_clusters,
    sharing_file_system,
    staged_clusters,
    staging_clusters,
)
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.session import HostAccess
from bootc.deploy.lost_entries import lost_kernels
from bootc.deploy.plan.cleanup import is_legible, needed_artifacts
from bootc.deploy.plan.steps import (
    DiscardStagedMenu,
    ExchangeMenu,
    Plan,
    RemoveArtifact,
    RemoveEntry,
    WriteStagedMenu,
)

#: Clusters for the directory of a new kernel, and for the growth of its parents.
_DIRECTORIES = 4
#: How a refusal names what :meth:`~bootc.boot.menu.BootMenu.copies_bytes` counts.
_COPY = "the copy of a kernel that the firmware starts by itself"


def room_for_update(
    dirs: BootDirs,
    facts: Facts,
    sizes: Mapping[str, int] | None,
    order: Sequence[NewItem | Item],
    *,
    shared: str | None,
) -> tuple[Artifact, ...]:
    """Return the kernels that must be removed before an update can be staged.

    Args:
        dirs: The directories for its kernel and its menu.
        facts: The system. The deployment that is staged now is dropped.
        sizes: Bytes of every file of its kernel, by name; None if it shares a kernel.
        order: Its menu.
        shared: The name of the kernel that it shares with another deployment.

    Raises:
        NoSpaceOnBoot: there is not enough space.
        OSError: the boot partition cannot be read.
    """
    if sizes is not None:
        open_menu(dirs).check_kernel(sizes)
    artifacts = list_artifacts(dirs)
    kept = kept_kernels(dirs, facts, artifacts, staged=False)
    if shared is not None:
        kept.add(shared)
    here = sharing_file_system(dirs.scheme, artifacts)
    free, cluster = free_space(dirs.binaries)
    if dirs.binaries is not dirs.menu:
        evict = plan_space(here, kept, sizes, free, cluster).evict
        menu = _room_for_menu(dirs, WriteStagedMenu(tuple(order)), facts, staged=False)
        return (*evict, *menu)
    menu_clusters = staging_clusters(dirs, compose_menu(dirs.scheme, order), cluster)
    spare = max(SPARE_CLUSTERS, menu_clusters + _DIRECTORIES)
    copies = open_menu(dirs).copies_bytes(order)
    if copies:
        sizes = {**(sizes or {}), _COPY: copies}
    return plan_space(
        here, kept, sizes, free, cluster, spare_clusters=spare, where=dirs.place
    ).evict


def with_room(system: HostAccess, facts: Facts, plan: Plan) -> Plan:
    """Let a plan first remove unused kernels, if the menu that it writes needs the space.

    Raises:
        NoSpaceOnBoot: there is not enough space for that menu.
        CannotCompose: the menu cannot be composed.
        OSError: the boot partition cannot be read.
    """
    for index, step in enumerate((*plan.before, plan.commit)):
        if isinstance(step, WriteStagedMenu | RemoveEntry | ExchangeMenu):
            first, rest = plan.before[:index], plan.before[index:]
            staged = DiscardStagedMenu() not in first
            evict = _room_for_menu(system.boot, step, facts, staged=staged)
            removals = (RemoveArtifact(artifact) for artifact in evict)
            return dataclasses.replace(plan, before=(*first, *removals, *rest))
    return plan


def kept_kernels(
    dirs: BootDirs, facts: Facts, artifacts: Sequence[Artifact], *, staged: bool
) -> set[str]:
    """Return the names of the kernels that must be kept, even if space is needed.

    Args:
        dirs: The directories of the kernels.
        facts: The system.
        artifacts: All kernels.
        staged: Keep that of the staged deployment, too.
    """
    if not is_legible(facts.active):
        return {artifact.name for artifact in artifacts}
    return {*needed_artifacts(facts, staged=staged), *lost_kernels(dirs, facts, artifacts)}


def _room_for_menu(
    dirs: BootDirs,
    step: WriteStagedMenu | RemoveEntry | ExchangeMenu,
    facts: Facts,
    *,
    staged: bool,
) -> tuple[Artifact, ...]:
    """Return the kernels that must be removed before a step can change the menu."""
    # A menu is small, and the machine may not boot without it: it may use root's reserve.
    free, cluster = free_space(dirs.menu, reserved=True)
    match step:
        case WriteStagedMenu(order):
            files = compose_menu(dirs.scheme, order)
            clusters = staging_clusters(dirs, files, cluster)
            clusters -= staged_clusters(dirs, cluster)
        case RemoveEntry(item):
            clusters = removal_clusters(dirs, item, cluster)
        case ExchangeMenu():
            clusters = exchange_clusters(dirs, cluster)
    required = clusters * cluster
    if required <= free:
        return ()
    artifacts = list_artifacts(dirs)
    kept = kept_kernels(dirs, facts, artifacts, staged=staged)
    here = beside_menu(dirs.scheme, artifacts)
    return plan_menu_space(here, kept, required, free, cluster, where=dirs.menu.path)
