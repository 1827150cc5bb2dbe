"""Room on the boot partition: what has to go before another kernel can come. Pure.

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

from bootc.boot.publish import Artifact, ArtifactKind
from bootc.boot.scheme import Scheme
from bootc.errors import Error
from bootc.formats.origin import BootType

#: For directories, menu entries and a second menu beside the first.
_SPARE_CLUSTERS = 16


class NoSpaceOnBoot(Error):
    """The boot partition cannot take another kernel, whatever is removed."""


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
) -> SpacePlan:
    """Decide what to remove.

    Args:
        existing: What lies in the file system that will be written to.
        needed_names: Names of those artifacts that must stay.
        new_sizes: Bytes of every file to write, by name; None where the kernel is there
            already and only a menu has to be written.
        free_bytes: What is free there now.
        cluster_bytes: What files are rounded up to there.

    Raises:
        NoSpaceOnBoot: there would be too little room without all that is not needed.
    """
    sizes = dict(new_sizes or {})
    clusters = sum(-(-size // cluster_bytes) for size in sizes.values()) + _SPARE_CLUSTERS
    required = clusters * cluster_bytes
    spare = [artifact for artifact in existing if artifact.name not in needed_names]
    spare.sort(key=lambda a: (a.kind is not ArtifactKind.LEFTOVER, a.mtime_ns, a.name))
    evict: list[Artifact] = []
    free = free_bytes
    while free < required and spare:
        artifact = spare.pop(0)
        # Rounded down: how its files were rounded up is not known.
        free += artifact.size_bytes - artifact.size_bytes % cluster_bytes
        evict.append(artifact)
    if free < required:
        kept = [artifact for artifact in existing if artifact.name in needed_names]
        raise _no_space(sizes, required, free_bytes, free, kept)
    return SpacePlan(tuple(evict), required)


def sharing_file_system(scheme: Scheme, artifacts: Sequence[Artifact]) -> tuple[Artifact, ...]:
    """Return those artifacts that lie where new ones of this scheme will be written."""
    if scheme.menu_on_esp:
        return tuple(artifacts)
    with_kernels = scheme.boot_type is BootType.BLS
    return tuple(a for a in artifacts if (a.kind is ArtifactKind.KERNEL) is with_kernels)


def _no_space(
    sizes: Mapping[str, int], required: int, free: int, obtainable: int, kept: Sequence[Artifact]
) -> NoSpaceOnBoot:
    parts = ", ".join(f"{name} {_mib(size)}" for name, size in sizes.items()) or "menu entries"
    text = f"the boot partition has {_mib(free)} free, but the update needs {_mib(required)}"
    text += f" ({parts})"
    if obtainable > free:
        text += f"; removing what nothing needs would leave {_mib(obtainable)} free"
    if kept:
        uses = ", ".join(f"{artifact.name[:12]} {_mib(artifact.size_bytes)}" for artifact in kept)
        text += f"; in use are the kernels of {uses}"
    return NoSpaceOnBoot(
        text,
        hint="remove a deployment with bootc delete-deployment, unpin one, "
        "or make the partition larger",
    )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
