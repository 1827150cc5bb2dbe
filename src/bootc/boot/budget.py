"""Room on the boot partition: what has to go before another kernel or menu can come. Pure.

A partition holds a handful of kernels, and one that is full in the middle of an update
is a machine in a bad state. So the sum is made before anything is written or removed.
What menus, pins or the running system need never goes; of the rest leftovers of
interrupted updates go first and then the oldest, and only as many as it takes. A kernel
that several deployments share is there once and counts once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from bootc.boot.publish import WITH_KERNELS, Artifact, ArtifactKind
from bootc.boot.scheme import Scheme
from bootc.errors import Error
from bootc.formats.origin import BootType
from bootc.sizes import human_size

#: For directories, menu entries and a second menu beside the first.
SPARE_CLUSTERS = 16


class NoSpaceOnBoot(Error):
    """The boot partition cannot take another kernel or menu, whatever is removed."""


@dataclass(frozen=True, slots=True)
class SpacePlan:
    """How the new kernel gets its room.

    Attributes:
        evict: What has to be removed first, in this order.
        required_bytes: What will be written, in whole clusters.
    """

    evict: tuple[Artifact, ...]
    required_bytes: int


def plan_space(
    existing: Sequence[Artifact],
    needed_names: AbstractSet[str],
    new_sizes: Mapping[str, int] | None,
    free_bytes: int,
    cluster_bytes: int,
    *,
    spare_clusters: int = SPARE_CLUSTERS,
) -> SpacePlan:
    """Decide what to remove for an update.

    Args:
        existing: What lies in the file system that will be written to.
        needed_names: Names of those artifacts that must stay.
        new_sizes: Bytes of every file to write, by name; None where the kernel is there
            already and only a menu has to be written.
        free_bytes: What is free there now.
        cluster_bytes: What files are rounded up to there.
        spare_clusters: What directories and menus may take.

    Raises:
        NoSpaceOnBoot: there would be too little room without all that is not needed.
    """
    sizes = dict(new_sizes or {})
    clusters = sum(-(-size // cluster_bytes) for size in sizes.values()) + spare_clusters
    required = clusters * cluster_bytes
    evict, obtainable = _evict(existing, needed_names, required, free_bytes, cluster_bytes)
    if obtainable < required:
        kept = [artifact for artifact in existing if artifact.name in needed_names]
        raise _no_space(sizes, required, free_bytes, obtainable, kept)
    return SpacePlan(evict, required)


def plan_menu_space(
    existing: Sequence[Artifact],
    needed_names: AbstractSet[str],
    required_bytes: int,
    free_bytes: int,
    cluster_bytes: int,
    *,
    where: str,
) -> tuple[Artifact, ...]:
    """Decide what to remove for a menu that comes without a kernel.

    Args:
        existing: What lies in the file system of the menu.
        needed_names: Names of those artifacts that must stay.
        required_bytes: What will be written, in whole clusters.
        free_bytes: What is free there now.
        cluster_bytes: What files are rounded up to there.
        where: What errors call that file system.

    Raises:
        NoSpaceOnBoot: there would be too little room without all that is not needed.
    """
    evict, obtainable = _evict(existing, needed_names, required_bytes, free_bytes, cluster_bytes)
    if obtainable < required_bytes:
        raise NoSpaceOnBoot(
            f"{where} has {human_size(obtainable)} free, "
            f"but another boot menu needs {human_size(required_bytes)} there",
            hint="remove what others have put there, or a deployment that does not boot next "
            "with bootc delete-deployment",
        )
    return evict


def _evict(
    existing: Sequence[Artifact],
    needed_names: AbstractSet[str],
    required: int,
    free: int,
    cluster_bytes: int,
) -> tuple[tuple[Artifact, ...], int]:
    """Return what has to go for so many bytes, and how many are free then."""
    spare = [artifact for artifact in existing if artifact.name not in needed_names]
    leftovers = (ArtifactKind.LEFTOVER, ArtifactKind.KERNEL_LEFTOVER)
    spare.sort(key=lambda a: (a.kind not in leftovers, a.mtime_ns, a.name))
    evict: list[Artifact] = []
    while free < required and spare:
        artifact = spare.pop(0)
        # Rounded down: how its files were rounded up is not known.
        free += artifact.size_bytes - artifact.size_bytes % cluster_bytes
        evict.append(artifact)
    return tuple(evict), free


def sharing_file_system(scheme: Scheme, artifacts: Sequence[Artifact]) -> tuple[Artifact, ...]:
    """Return those artifacts that lie where new ones of this scheme will be written."""
    if scheme.menu_on_esp:
        return tuple(artifacts)
    with_kernels = scheme.boot_type is BootType.BLS
    return tuple(a for a in artifacts if (a.kind in WITH_KERNELS) is with_kernels)


def beside_menu(scheme: Scheme, artifacts: Sequence[Artifact]) -> tuple[Artifact, ...]:
    """Return those artifacts that lie in the file system of the menu."""
    if scheme.menu_on_esp:
        return tuple(artifacts)
    return tuple(a for a in artifacts if a.kind in WITH_KERNELS)


def _no_space(
    sizes: Mapping[str, int], required: int, free: int, obtainable: int, kept: Sequence[Artifact]
) -> NoSpaceOnBoot:
    parts = (
        ", ".join(f"{name} {human_size(size)}" for name, size in sizes.items()) or "menu entries"
    )
    text = (
        f"the boot partition has {human_size(free)} free, "
        f"but the update needs {human_size(required)} ({parts})"
    )
    if obtainable > free:
        text += f"; removing what nothing needs would leave {human_size(obtainable)} free"
    if kept:
        uses = ", ".join(
            f"{artifact.name[:12]} {human_size(artifact.size_bytes)}" for artifact in kept
        )
        text += f"; in use are the kernels of {uses}"
    return NoSpaceOnBoot(
        text,
        hint="remove a deployment with bootc delete-deployment, unpin one, "
        "or make the partition larger",
    )
