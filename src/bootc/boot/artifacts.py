"""Our kernels on the boot partition: listing them, and removing those that nothing needs."""

from __future__ import annotations

import contextlib
import enum
import logging
import stat
from collections.abc import Collection
from dataclasses import dataclass

from bootc.boot import scheme as schemes
from bootc.boot.scheme import UKIS, BootDirs
from bootc.errors import doing, one_line
from bootc.fs import atomic
from bootc.fs.dir import Dir
from bootc.fs.visit import files_below

_log = logging.getLogger(__name__)


class ArtifactKind(enum.StrEnum):
    """What an artifact is."""

    #: A directory with a kernel and its initramfs.
    KERNEL = "kernel"
    #: A unified kernel image, with what is added to it.
    UKI = "uki"
    #: What an interrupted call left of unified kernel images.
    LEFTOVER = "leftover"
    #: What one left of a directory with a kernel, under a temporary name.
    KERNEL_LEFTOVER = "kernel leftover"


#: Those that lie in the file system of the menu.
WITH_KERNELS = frozenset({ArtifactKind.KERNEL, ArtifactKind.KERNEL_LEFTOVER})


@dataclass(frozen=True, slots=True)
class Artifact:
    """Something of ours on a boot partition.

    Attributes:
        name: Id of the image that brought it; the file name of a leftover.
        kind: What it is.
        path: Where it is, in the file system that has artifacts of its kind.
        size_bytes: Content of all its files.
        mtime_ns: When the newest of them was written.
    """

    name: str
    kind: ArtifactKind
    path: str
    size_bytes: int
    mtime_ns: int


def list_artifacts(dirs: BootDirs) -> tuple[Artifact, ...]:
    """Return every artifact there is, of either kind and whatever the boot type, by path.

    Raises:
        OSError: a directory cannot be read.
    """
    found: list[Artifact] = []
    with doing("Listing what is on the boot partition"):
        for name in _names(dirs.menu, dirs.scheme.kernels):
            path, kind = dirs.scheme.kernel_path(name), _kernel_kind(name)
            if kind and stat.S_ISDIR(dirs.menu.stat(path).st_mode):
                found.append(_artifact(dirs.menu, kind, name, path))
        names = _names(dirs.binaries, UKIS)
        for name in names:
            if kind := _kind(name, names):
                found.append(_artifact(dirs.binaries, kind, name, f"{UKIS}/{name}"))
    return tuple(found)


def remove_artifact(dirs: BootDirs, artifact: Artifact) -> None:
    """Remove an artifact and what belongs to it. What is gone already is fine.

    The caller has made sure, on the disk, that no menu names it any more.

    Raises:
        OSError: it cannot be removed.
    """
    root = dirs.menu if artifact.kind in WITH_KERNELS else dirs.binaries
    paths = [artifact.path]
    if artifact.kind is ArtifactKind.KERNEL:
        paths = [_set_aside(root, artifact.path)]
    if artifact.kind is ArtifactKind.UKI:
        # The image goes first: a start without its additions would be another start.
        paths.append(schemes.addons_dir(artifact.path))
    with doing(f"Removing {root.path}/{artifact.path}"):
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                root.remove_tree(path)


def _names(root: Dir, path: str) -> list[str]:
    try:
        with root.open_dir(path) as directory:
            return directory.names()
    except (FileNotFoundError, NotADirectoryError):
        return []


def _kind(name: str, beside: Collection[str]) -> ArtifactKind | None:
    """Tell what a name among the unified kernel images is; add-ons belong to their image."""
    if name.startswith(atomic.FILE_PREFIX):
        return ArtifactKind.LEFTOVER
    image = schemes.addons_owner(name)
    if image is not None:
        return ArtifactKind.LEFTOVER if image not in beside else None
    return ArtifactKind.UKI if schemes.uki_artifact(f"/{UKIS}/{name}") else None


def _kernel_kind(name: str) -> ArtifactKind | None:
    """Tell what a name among the directories of kernels is."""
    if name.startswith(atomic.FILE_PREFIX):
        name = name.removeprefix(atomic.FILE_PREFIX)
        return ArtifactKind.KERNEL_LEFTOVER if schemes.artifact_name(name) else None
    return ArtifactKind.KERNEL if schemes.artifact_name(name) else None


def _set_aside(root: Dir, path: str) -> str:
    """Give a kernel's directory a name that nobody looks into, and return its path.

    A half of it under its own name would make upstream's program fail, as one half written.
    """
    above, _, name = path.rpartition("/")
    aside = f"{above}/{atomic.FILE_PREFIX}{name}".lstrip("/")
    try:
        root.remove_tree(aside)
        root.rename(path, aside)
    except OSError as exc:
        # On a full partition there may be no room for the name; it can be removed all the same.
        _log.debug("%s keeps its name: %s", path, one_line(exc))
        return path
    return aside


def _artifact(root: Dir, kind: ArtifactKind, name: str, path: str) -> Artifact:
    paths = [path, schemes.addons_dir(path)] if kind is ArtifactKind.UKI else [path]
    sizes, times = [0], [0]
    for part in paths:
        try:
            for info in files_below(root, part):
                sizes.append(info.st_size)
                times.append(info.st_mtime_ns)
        except OSError as exc:
            # It is there all the same, and others are none the worse.
            _log.warning("the size of a kernel is not known: %s", one_line(exc))
    artifact = schemes.artifact_name(name) or name
    return Artifact(artifact, kind, path, sum(sizes), max(times))
