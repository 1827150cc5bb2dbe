"""Plans for cleaning up: state, kernels, tags and objects that no deployment needs.

Pure. A deployment lives as long as an entry can boot it: an entry of the live menu, or of
the staged menu while that is announced or waits after a failed finalization. The booted and
the pinned deployments always live. Foreign things are left alone: files with other names,
tags of other tools, state directories whose name is no image id.

The steps are independent of each other. Objects are kept for living deployments, not for
every state directory: state that cannot be removed keeps no image.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from bootc.boot.artifacts import Artifact
from bootc.boot.findings import FindingKind
from bootc.boot.menu_read import Menu
from bootc.deploy.host.facts import Facts
from bootc.deploy.plan.stage import leftovers
from bootc.deploy.plan.steps import (
    CollectObjects,
    DiscardStagedMenu,
    Plan,
    RefreshMenu,
    RemoveArtifact,
    RemoveLeftover,
    RemoveRecounted,
    RemoveState,
    RemoveTag,
    SetTag,
    Step,
    SynchroniseMirrors,
)
from bootc.formats.digest import Digest, OciDigest

_ILLEGIBLE = "Nothing is cleaned up: the boot menu is damaged, see bootc status."


def plan_gc(
    facts: Facts,
    artifacts: Sequence[Artifact],
    tags: Mapping[str, OciDigest],
    *,
    repository: bool,
    lost: Collection[str] = (),
) -> Plan:
    """Plan the removal of everything that no deployment needs.

    Args:
        facts: The system.
        artifacts: The kernels on the boot partition.
        tags: bootc's own tags in the repository, and the images they keep.
        repository: Clean the repository as well, which takes longer.
        lost: Names of kernels that must be kept although no entry names them.
    """
    live = live_deployments(facts)
    steps: list[Step] = []
    if not is_legible(facts.active):
        return Plan(notes=(_ILLEGIBLE,))
    if any(finding.kind is FindingKind.OUTDATED for finding in facts.mirrors):
        # First: the menu of a mirror may refer to what the other steps remove.
        steps.append(SynchroniseMirrors())
    if facts.staged.items and not _waits(facts):
        steps.append(DiscardStagedMenu())
    needed = {*needed_artifacts(facts), *lost}
    steps += [RemoveArtifact(artifact) for artifact in artifacts if artifact.name not in needed]
    steps += [RemoveState(deployment) for deployment in facts.states if deployment not in live]
    steps += [RemoveRecounted(name) for name in facts.active.recounted]
    if facts.active.missing:
        # It may need the space that the steps before have made.
        steps.append(RefreshMenu())
    steps += [RemoveLeftover(name) for name in facts.leftovers]
    if repository:
        manifests = sorted(set(_manifests(facts, live)), key=str)
        tagged = set(tags.values())
        steps += [SetTag(manifest) for manifest in manifests if manifest not in tagged]
        steps += [RemoveTag(name) for name, kept in tags.items() if kept not in manifests]
        # All of them: any may be the one that the initramfs finds.
        named = {image for deployment in live for image in facts.images_of(deployment)}
        images = sorted(named, key=lambda digest: digest.hex)
        steps.append(CollectObjects(tuple(images), tuple(manifests)))
    return Plan(after=tuple(steps))


def live_deployments(facts: Facts) -> set[Digest]:
    """Return the deployments that an entry can boot, and the booted and pinned ones."""
    live = {facts.booted.image_id, *(item.deployment for item in facts.active.items)}
    live.update(leftovers(facts))
    return live | {deployment for deployment, state in facts.states.items() if state.pinned}


def needed_artifacts(facts: Facts, *, staged: bool = True) -> set[str]:
    """Return the names of the kernels that deployments boot with by their entries.

    Args:
        facts: The system.
        staged: Count the staged deployment; it is about to be replaced if not.
    """
    menus = [facts.active]
    if staged and _waits(facts):
        menus.append(facts.staged)
    return {item.artifact for menu in menus for item in menu.items if item.artifact}


def is_legible(menu: Menu) -> bool:
    """Tell whether every deployment of the live menu is known.

    An entry of ours that cannot be read may belong to a deployment that the user wants back.
    The next menu is written without it. A foreign entry may stay unreadable permanently.
    """
    odd = (FindingKind.MALFORMED, FindingKind.UNREADABLE)
    return bool(menu.items) and not any(
        finding.kind in odd and finding.subject not in menu.foreign for finding in menu.findings
    )


def _waits(facts: Facts) -> bool:
    """Tell whether the staged menu may still be exchanged, and is no leftover."""
    doomed = leftovers(facts)
    return any(item.deployment in doomed for item in facts.staged.items)


def _manifests(facts: Facts, live: set[Digest]) -> Iterator[OciDigest]:
    for deployment in live:
        origin = facts.origin(deployment)
        if origin is not None and origin.manifest_digest is not None:
            yield origin.manifest_digest
