"""Room on the boot partition: how much there is, and how much a kernel or a menu takes.

A boot partition has room for a few kernels, and must not become full in the middle of an update.
Therefore bootc adds up the room before it writes or removes anything. Three parts:

* :func:`plan_space` and :func:`plan_menu_space` decide which kernels to remove first. They are
  pure. A kernel that several deployments share counts once.
* :func:`free_space` asks the file system.
* The functions ``*_clusters`` count what a menu takes, as FAT counts. They only read. No other
  file system takes more room for a few small files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from bootc.boot.artifacts import WITH_KERNELS, Artifact, ArtifactKind
from bootc.boot.foreign_entries import differing
from bootc.boot.menu_generate import generate_menu
from bootc.boot.menu_read import (
    MAX_MENU_BYTES,
    Item,
    foreign_files,
    is_foreign,
)
from bootc.boot.menu_write import whole_file
from bootc.boot.scheme import GENERATED_MENU, USER_CFG, BootDirs, Scheme
from bootc.errors import Error
from bootc.formats import bls, grubcfg, grubmenu
from bootc.formats.grubcfg import GrubCfgError
from bootc.formats.grubmenu import MenuItem
from bootc.formats.origin import BootType
from bootc.fs.dir import Dir
from bootc.fs.visit import files_below
from bootc.sizes import human_size

#: For directories, menu entries and a second menu beside the first.
SPARE_CLUSTERS = 16
#: A name in a FAT directory is a record of 32 bytes, and in its long form one more record for each
#: 13 characters.
_RECORD_BYTES = 32
_RECORD_CHARACTERS = 13
#: Each new file first has a temporary name, for which its directory may have to grow.
_TEMPORARY = 1
#: The size of the id of a deployment.
_ID_BYTES = 128


class NoSpaceOnBoot(Error):
    """The boot partition has too little room for another kernel or menu."""


@dataclass(frozen=True, slots=True)
class SpacePlan:
    """A plan that makes room for a new kernel.

    Attributes:
        evict: The artifacts to remove first, in this order.
        required_bytes: The size of all new files, in whole clusters.
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
    where: str = "the boot partition",
) -> SpacePlan:
    """Decide what to remove for an update.

    Args:
        existing: The artifacts in the file system of the new kernel.
        needed_names: The names of the artifacts that must remain.
        new_sizes: The size in bytes of each new file, by name; None if the kernel already exists
            and only a menu is new.
        free_bytes: The free bytes of this file system.
        cluster_bytes: The size of its clusters. Each file takes whole clusters.
        spare_clusters: Clusters for directories and menus.
        where: How errors name this file system.

    Raises:
        NoSpaceOnBoot: removing all unneeded artifacts does not make enough room.
    """
    sizes = dict(new_sizes or {})
    clusters = sum(-(-size // cluster_bytes) for size in sizes.values()) + spare_clusters
    required = clusters * cluster_bytes
    evict, obtainable = _evict(existing, needed_names, required, free_bytes, cluster_bytes)
    if obtainable < required:
        kept = [artifact for artifact in existing if artifact.name in needed_names]
        raise _no_space(where, sizes, required, free_bytes, obtainable, kept)
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
    """Decide what to remove for a new menu without a new kernel.

    Args:
        existing: The artifacts in the file system of the menu.
        needed_names: The names of the artifacts that must remain.
        required_bytes: The size of all new files, in whole clusters.
        free_bytes: The free bytes of this file system.
        cluster_bytes: The size of its clusters.
        where: How errors name this file system.

    Raises:
        NoSpaceOnBoot: removing all unneeded artifacts does not make enough room.
    """
    evict, obtainable = _evict(existing, needed_names, required_bytes, free_bytes, cluster_bytes)
    if obtainable < required_bytes:
        raise NoSpaceOnBoot(
            f"{where} has {human_size(obtainable)} free, "
            f"but another boot menu needs {human_size(required_bytes)} there",
            hint="remove files of other systems there, or delete a deployment that does not boot "
            "next: bootc delete-deployment",
        )
    return evict


def _evict(
    existing: Sequence[Artifact],
    needed_names: AbstractSet[str],
    required: int,
    free: int,
    cluster_bytes: int,
) -> tuple[tuple[Artifact, ...], int]:
    """Return what to remove for the required bytes, and how many bytes are free then."""
    spare = [artifact for artifact in existing if artifact.name not in needed_names]
    # The remains of interrupted updates first, then the oldest kernels.
    leftovers = (ArtifactKind.LEFTOVER, ArtifactKind.KERNEL_LEFTOVER)
    spare.sort(key=lambda a: (a.kind not in leftovers, a.mtime_ns, a.name))
    evict: list[Artifact] = []
    while free < required and spare:
        artifact = spare.pop(0)
        # Rounded down, because the sizes of its single files are unknown here.
        free += artifact.size_bytes - artifact.size_bytes % cluster_bytes
        evict.append(artifact)
    return tuple(evict), free


def sharing_file_system(scheme: Scheme, artifacts: Sequence[Artifact]) -> tuple[Artifact, ...]:
    """Return the artifacts in the file system of the new kernels of this scheme."""
    if scheme.menu_on_esp:
        return tuple(artifacts)
    with_kernels = scheme.boot_type is BootType.BLS
    return tuple(a for a in artifacts if (a.kind in WITH_KERNELS) is with_kernels)


def beside_menu(scheme: Scheme, artifacts: Sequence[Artifact]) -> tuple[Artifact, ...]:
    """Return the artifacts in the file system of the menu."""
    if scheme.menu_on_esp:
        return tuple(artifacts)
    return tuple(a for a in artifacts if a.kind in WITH_KERNELS)


def _no_space(
    where: str,
    sizes: Mapping[str, int],
    required: int,
    free: int,
    obtainable: int,
    kept: Sequence[Artifact],
) -> NoSpaceOnBoot:
    parts = (
        ", ".join(f"{name} {human_size(size)}" for name, size in sizes.items()) or "menu entries"
    )
    text = (
        f"{where} has {human_size(free)} free, "
        f"but the update needs {human_size(required)} ({parts})"
    )
    if obtainable > free:
        text += f"; removing unneeded kernels would leave {human_size(obtainable)} free"
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


def free_space(root: Dir, *, reserved: bool = False) -> tuple[int, int]:
    """Return the free bytes of a file system of boot files, and the size of its clusters.

    With ``reserved``, the room that ext4 reserves for root counts as free.
    """
    volume = os.statvfs(root.fileno())
    free = volume.f_bfree if reserved else volume.f_bavail
    return free * volume.f_frsize, volume.f_frsize


def staging_clusters(dirs: BootDirs, files: Sequence[tuple[str, bytes]], cluster_bytes: int) -> int:
    """Return how many clusters a staged menu of these files takes, with the foreign entries.

    Raises:
        OSError: the live menu cannot be read.
    """
    if dirs.scheme.menu_is_file:
        entries = [entry for _, data in files for entry in grubcfg.parse_menu(data)]
        return _file(len(whole_file(dirs, entries)), cluster_bytes) + _TEMPORARY
    count = sum(_file(len(data), cluster_bytes) for _, data in files)
    names = [name for name, _ in files]
    if dirs.menu.exists(dirs.scheme.entries):
        with dirs.menu.open_dir(dirs.scheme.entries) as live:
            foreign = foreign_files(live)
            count += _files(live, foreign, cluster_bytes)
            names += foreign
    if dirs.scheme.generated:
        # In the staged menu, and in the copy of the menu that was committed last.
        count += 2 * _file(_generated_bytes(dirs, files), cluster_bytes)
        names.append(GENERATED_MENU)
    return count + _directory(names, cluster_bytes) + _TEMPORARY


def staged_clusters(dirs: BootDirs, cluster_bytes: int) -> int:
    """Return how many clusters the current staged menu has. The next one can use them.

    Raises:
        OSError: the staged menu cannot be read.
    """
    count = _files(dirs.menu, [dirs.scheme.staged], cluster_bytes)
    if not dirs.scheme.menu_is_file and dirs.menu.exists(dirs.scheme.staged):
        with dirs.menu.open_dir(dirs.scheme.staged) as staged:
            count += _directory(staged.names(), cluster_bytes)
    return count


def exchange_clusters(dirs: BootDirs, cluster_bytes: int) -> int:
    """Return how many clusters the foreign entries take that the staged menu still lacks.

    Entries that changed since staging count as well.

    Raises:
        OSError: a menu cannot be read.
    """
    live, path = dirs.scheme.entries, dirs.scheme.staged
    if not (dirs.menu.exists(live) and dirs.menu.exists(path)):
        return 0
    if dirs.scheme.menu_is_file:
        data = dirs.menu.read_bytes(path, MAX_MENU_BYTES)
        try:
            entries = [entry for entry in grubcfg.parse_menu(data) if not is_foreign(entry)]
        except GrubCfgError:
            return 0  # The exchange reports this error.
        current = whole_file(dirs, entries)
        return 0 if current == data else _file(len(current), cluster_bytes) + _TEMPORARY
    with dirs.menu.open_dir(live) as directory, dirs.menu.open_dir(path) as staged:
        names = differing(directory, staged)
        if not names:
            return 0
        count = _files(directory, names, cluster_bytes)
        return count + _directory(names, cluster_bytes) + _TEMPORARY


def removal_clusters(dirs: BootDirs, item: Item, cluster_bytes: int) -> int:
    """Return how many clusters it takes to remove an entry, if a file is written for that."""
    if isinstance(item.entry, grubcfg.MenuEntry):
        return _files(dirs.menu, [USER_CFG], cluster_bytes) + _TEMPORARY
    if dirs.scheme.generated:
        path = f"{dirs.scheme.entries}/{GENERATED_MENU}"
        return _files(dirs.menu, [path], cluster_bytes) + _TEMPORARY
    return 0


def _files(above: Dir, names: Iterable[str], cluster_bytes: int) -> int:
    return sum(
        _file(info.st_size, cluster_bytes) for name in names for info in files_below(above, name)
    )


def _generated_bytes(dirs: BootDirs, files: Iterable[tuple[str, bytes]]) -> int:
    """Return the size of GRUB's menu of these boot entries and the foreign entries."""
    name = f"bootc-{'0' * _ID_BYTES}"
    items = [MenuItem(name, bls.parse_entry(data)) for _, data in files]
    if dirs.menu.exists(dirs.scheme.entries):
        with dirs.menu.open_dir(dirs.scheme.entries) as live:
            items += generate_menu(live, dirs.scheme).foreign
    return len(grubmenu.serialise("0" * _ID_BYTES, items))


def _file(size_bytes: int, cluster_bytes: int) -> int:
    return -(-size_bytes // cluster_bytes)


def _directory(names: Iterable[str], cluster_bytes: int) -> int:
    records = 2 + sum(1 - (-len(name) // _RECORD_CHARACTERS) for name in names)
    return _file(records * _RECORD_BYTES, cluster_bytes)
