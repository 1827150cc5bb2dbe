"""The kernels of bootc on the boot partition: lists and removes them.

An artifact is a kernel or a unified kernel image of ours, or the remains of one
(:mod:`bootc.boot.scheme` has the names). :mod:`bootc.boot.kernels` writes them.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import stat
from collections.abc import Collection
from dataclasses import dataclass

from bootc.boot import scheme as schemes
from bootc.boot.scheme import ADDON_SUFFIX, GLOBAL_ADDONS, UKIS, BootDirs
from bootc.errors import doing, one_line
from bootc.formats.digest import Digest
from bootc.fs import atomic
from bootc.fs.dir import Dir
from bootc.fs.visit import files_below

_log = logging.getLogger(__name__)


class ArtifactKind(enum.StrEnum):
    """The kinds of artifacts."""

    #: A directory with a kernel and its initramfs.
    KERNEL = "kernel"
    #: A unified kernel image with its add-ons.
    UKI = "uki"
    #: A unified kernel image that waits to be written to a partition of ukiboot.
    PAYLOAD = "payload"
    #: A global add-on of unified kernel images.
    ADDON = "add-on"
    #: The remains of unified kernel images after an interruption.
    LEFTOVER = "leftover"
    #: The remains of a directory with a kernel, under a temporary name.
    KERNEL_LEFTOVER = "kernel leftover"


#: The kinds that are in the file system of the menu.
WITH_KERNELS = frozenset({ArtifactKind.KERNEL, ArtifactKind.KERNEL_LEFTOVER})


@dataclass(frozen=True, slots=True)
class Artifact:
    """A kernel of bootc on a boot partition, or the remains of one.

    Attributes:
        name: The id of the image that it came with; the file name of a leftover; the name that a
            global add-on has in its image.
        kind: Its kind.
        path: Its path in the file system that has artifacts of its kind.
        size_bytes: The size of the content of all its files.
        mtime_ns: When its newest file was written.
    """

    name: str
    kind: ArtifactKind
    path: str
    size_bytes: int
    mtime_ns: int


def list_artifacts(dirs: BootDirs) -> tuple[Artifact, ...]:
    """Return all artifacts of all kinds and boot types, ordered by path.

    Raises:
        OSError: a directory cannot be read.
    """
    if dirs.slots is not None:
        return _list_payloads(dirs)
    found: list[Artifact] = []
    with doing("Listing the kernels on the boot partition"):
        for name in _names(dirs.menu, dirs.scheme.kernels):
            path, kind = dirs.scheme.kernel_path(name), _kernel_kind(name)
            if kind and stat.S_ISDIR(dirs.menu.stat(path).st_mode):
                found.append(_artifact(dirs.menu, kind, name, path))
        names = _names(dirs.binaries, UKIS)
        for name in names:
            if kind := _kind(name, names):
                found.append(_artifact(dirs.binaries, kind, name, f"{UKIS}/{name}"))
            elif schemes.addons_owner(name):
                found += _addon_leftovers(dirs.binaries, f"{UKIS}/{name}")
    return tuple(found)


def _list_payloads(dirs: BootDirs) -> tuple[Artifact, ...]:
    # Imported here: few machines have partitions of ukiboot.
    from bootc.boot.slots import DEPLOYMENTS, payload_dir

    found = []
    with doing("Listing the kernels that wait for their partition"):
        for name in _names(dirs.binaries, DEPLOYMENTS):
            artifact = schemes.artifact_name(name)
            if artifact == name:
                path = payload_dir(Digest.from_hex(artifact))
                if dirs.binaries.exists(path):
                    found.append(_artifact(dirs.binaries, ArtifactKind.PAYLOAD, name, path))
    return tuple(found)


def list_global_addons(dirs: BootDirs) -> tuple[Artifact, ...]:
    """Return the global add-ons that bootc installed, and remains of such.

    Raises:
        OSError: the directory cannot be read.
    """
    found: list[Artifact] = []
    with doing("Listing the global add-ons on the boot partition"):
        for file_name in _names(dirs.binaries, GLOBAL_ADDONS):
            name, kind = schemes.global_addon(file_name), ArtifactKind.ADDON
            if file_name.startswith(atomic.FILE_PREFIX):
                name, kind = file_name, ArtifactKind.LEFTOVER
            if name is not None:
                path = f"{GLOBAL_ADDONS}/{file_name}"
                found.append(_artifact(dirs.binaries, kind, name, path))
    return tuple(found)


def list_own_addons(dirs: BootDirs) -> tuple[Artifact, ...]:
    """Return the global add-ons that came with no image: the administrator put them there.

    Raises:
        OSError: the directory cannot be read.
    """
    with doing("Listing the global add-ons on the boot partition"):
        return tuple(
            _artifact(dirs.binaries, ArtifactKind.ADDON, name, f"{GLOBAL_ADDONS}/{name}")
            for name in _names(dirs.binaries, GLOBAL_ADDONS)
            if name.endswith(ADDON_SUFFIX) and name[0] != "." and not schemes.global_addon(name)
        )


def root_of(dirs: BootDirs, artifact: Artifact) -> Dir:
    """Return the root of the file system that has an artifact."""
    return dirs.menu if artifact.kind in WITH_KERNELS else dirs.binaries


def remove_artifact(dirs: BootDirs, artifact: Artifact) -> None:
    """Remove an artifact with its add-ons. An artifact that does not exist is no error.

    Before the call, no menu on the disk names the artifact any more; the caller ensures this.

    Raises:
        OSError: removing failed.
    """
    root = root_of(dirs, artifact)
    paths = [artifact.path]
    if artifact.kind is ArtifactKind.KERNEL:
        paths = [_set_aside(root, artifact.path)]
    if artifact.kind is ArtifactKind.UKI:
        # Remove the image first: without its add-ons it would start differently.
        paths += schemes.addons_dirs(artifact.path)
    with doing(f"Removing {root.path}/{artifact.path}"):
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                root.remove_tree(path)


def _addon_leftovers(root: Dir, home: str) -> list[Artifact]:
    """Return the remains of add-ons in the directory of a unified kernel image that exists."""
    return [
        _artifact(root, ArtifactKind.LEFTOVER, name, f"{home}/{name}")
        for name in _names(root, home)
        if name.startswith(atomic.FILE_PREFIX)
    ]


def _names(root: Dir, path: str) -> list[str]:
    try:
        with root.open_dir(path) as directory:
            return directory.names()
    except (FileNotFoundError, NotADirectoryError):
        return []


def _kind(name: str, beside: Collection[str]) -> ArtifactKind | None:
    """Return the kind of a name among the unified kernel images; None for add-ons and others."""
    if name.startswith(atomic.FILE_PREFIX):
        return ArtifactKind.LEFTOVER
    image = schemes.addons_owner(name)
    if image is not None:
        images = (schemes.uki_artifact(f"/{UKIS}/{other}") for other in beside)
        return None if image in images else ArtifactKind.LEFTOVER
    return ArtifactKind.UKI if schemes.uki_artifact(f"/{UKIS}/{name}") else None


def _kernel_kind(name: str) -> ArtifactKind | None:
    """Return the kind of a name among the directories of kernels; None for others."""
    if name.startswith(atomic.FILE_PREFIX):
        name = name.removeprefix(atomic.FILE_PREFIX)
        return ArtifactKind.KERNEL_LEFTOVER if schemes.artifact_name(name) else None
    return ArtifactKind.KERNEL if schemes.artifact_name(name) else None


def _set_aside(root: Dir, path: str) -> str:
    """Give the directory of a kernel a temporary name, and return its new path.

    The upstream program fails if a directory with a kernel's name has only a part of the files.
    """
    above, _, name = path.rpartition("/")
    aside = f"{above}/{atomic.FILE_PREFIX}{name}".lstrip("/")
    try:
        root.remove_tree(aside)
        root.rename(path, aside)
    except OSError as exc:
        # A full partition may have no room for the name. Removing still works.
        _log.debug("%s keeps its name: %s", path, one_line(exc))
        return path
    return aside


def _artifact(root: Dir, kind: ArtifactKind, name: str, path: str) -> Artifact:
    paths = [path, *schemes.addons_dirs(path)] if kind is ArtifactKind.UKI else [path]
    sizes, times = [0], [0]
    for part in paths:
        try:
            for info in files_below(root, part):
                sizes.append(info.st_size)
                times.append(info.st_mtime_ns)
        except OSError as exc:
            # The artifact exists anyway, and the others are not affected.
            _log.warning("the size of a kernel is unknown: %s", one_line(exc))
    artifact = schemes.artifact_name(name) or name
    return Artifact(artifact, kind, path, sum(sizes), max(times))
