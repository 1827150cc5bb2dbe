"""Room on the boot partition: what has to go before a command can write to it.

Promises: the sum is made before anything is touched, in a dry run as in earnest. What goes
boots neither a deployment of the menu nor the booted or a pinned one, and only as much goes
as it takes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from bootc.boot import budget, publish
from bootc.boot.clusters import (
    exchange_clusters,
    removal_clusters,
    staged_clusters,
    staging_clusters,
)
from bootc.boot.menu_compose import NewItem, compose_menu
from bootc.boot.menu_read import Item
from bootc.boot.publish import Artifact
from bootc.boot.scheme import BootDirs
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
from bootc.formats import grubcfg

#: For the directory of a new kernel, and the growth of those above it.
_DIRECTORIES = 4


def room_for_update(
    dirs: BootDirs,
    facts: Facts,
    sizes: Mapping[str, int] | None,
    order: Sequence[NewItem | Item],
    *,
    shared: str | None,
) -> tuple[Artifact, ...]:
    """Return the kernels that have to go before an update can be staged.

    Args:
        dirs: Where its kernel and its menu are written.
        facts: The system. What is staged now is given up.
        sizes: Bytes of every file of its kernel, by name; None where that is there already.
        order: Its menu.
        shared: Name of the kernel that is there already.

    Raises:
        NoSpaceOnBoot: there is no room for it.
        OSError: what is there cannot be read.
    """
    artifacts = publish.list_artifacts(dirs)
    kept = kept_kernels(dirs, facts, artifacts, staged=False)
    if shared is not None:
        kept.add(shared)
    here = budget.sharing_file_system(dirs.scheme, artifacts)
    free, cluster = publish.free_space(dirs.binaries)
    if dirs.binaries is not dirs.menu:
        evict = budget.plan_space(here, kept, sizes, free, cluster).evict
        menu = _room_for_menu(dirs, WriteStagedMenu(tuple(order)), facts, staged=False)
        return (*evict, *menu)
    menu_clusters = staging_clusters(dirs, compose_menu(dirs.scheme, order), cluster)
    spare = max(budget.SPARE_CLUSTERS, menu_clusters + _DIRECTORIES)
    return budget.plan_space(here, kept, sizes, free, cluster, spare_clusters=spare).evict


def with_room(system: HostAccess, facts: Facts, plan: Plan) -> Plan:
    """Have a plan remove what nothing needs, where the menu it writes needs the room.

    Raises:
        NoSpaceOnBoot: there is no room for that menu.
        CannotCompose: there cannot be such a menu.
        OSError: what is there cannot be read.
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
    """Return the names of the kernels that must stay, whatever needs their room.

    Args:
        dirs: Where they are.
        facts: The system.
        artifacts: All there are.
        staged: Count what is staged; it is about to be given up if not.
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
    """Return the kernels that have to go before a step can change the menu."""
    # A menu is small, and may be what the machine needs to boot at all.
    free, cluster = publish.free_space(dirs.menu, reserved=True)
    match step:
        case WriteStagedMenu(order):
            files = compose_menu(dirs.scheme, order)
            clusters = staging_clusters(dirs, files, cluster)
            clusters -= staged_clusters(dirs, cluster)
        case RemoveEntry(item):
            rewrites = isinstance(item.entry, grubcfg.MenuEntry)
            clusters = removal_clusters(dirs, cluster) if rewrites else 0
        case ExchangeMenu():
            clusters = exchange_clusters(dirs, cluster)
    required = clusters * cluster
    if required <= free:
        return ()
    artifacts = publish.list_artifacts(dirs)
    kept = kept_kernels(dirs, facts, artifacts, staged=staged)
    here = budget.beside_menu(dirs.scheme, artifacts)
    return budget.plan_menu_space(here, kept, required, free, cluster, where=dirs.menu.path)
