"""Putting what a deployment boots with where the boot loader finds it, and taking it away again.

The menu that names it comes later (:mod:`bootc.boot.replacing`). Promises, on FAT, which
has no journal:

* what has its final name is whole, and on the disk when the call returns;
* everything here can be interrupted anywhere and done again.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import logging
import os
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from bootc.boot import scheme as schemes
from bootc.boot.content import CHUNK_BYTES, ObjectSource, checked_chunks, open_content
from bootc.boot.discover import Kernel, UkiFile
from bootc.boot.scheme import INITRD, UKIS, VMLINUZ, BootDirs
from bootc.boot.uki import publish_uki
from bootc.boot.writing import write_stream
from bootc.errors import doing, one_line
from bootc.formats.digest import Digest
from bootc.formats.pe import Uki
from bootc.fs import atomic
from bootc.fs.descent import Descent, MountPoint
from bootc.fs.dir import Dir

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


def publish_resource(
    dirs: BootDirs, deployment: Digest, resource: Kernel | UkiFile, objects: ObjectSource
) -> str:
    """Write what a deployment boots with, and return its boot digest.

    Raises:
        Error, OSError: as from :func:`publish_kernel` and :func:`bootc.boot.uki.publish_uki`.
    """
    if isinstance(resource, UkiFile):
        return publish_uki(dirs, deployment, resource, objects)
    return publish_kernel(dirs, deployment, resource, objects)


def publish_kernel(
    dirs: BootDirs, deployment: Digest, kernel: Kernel, objects: ObjectSource
) -> str:
    """Write a deployment's kernel and initramfs, and return their boot digest.

    The boot digest is the SHA-256 of both files, one after the other, in hex;
    deployments with equal ones start alike. The directory gets its name when both are in it:
    upstream's program looks into every kernel directory and fails where one of them is missing.

    Raises:
        DamagedKernel: what is stored is not what the image names.
        OSError: reading or writing failed.
    """
    name = schemes.kernel_dir(deployment.hex)
    path = dirs.scheme.kernel_path(name)
    with doing(f"Writing the kernel to {dirs.menu.path}/{path}"):
        if dirs.menu.exists(path):
            return _write_kernel(dirs, path, kernel, objects)
        temporary = dirs.scheme.kernel_path(f"{atomic.FILE_PREFIX}{name}")
        try:
            boot_digest = _write_kernel(dirs, temporary, kernel, objects)
            dirs.menu.rename(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                dirs.menu.remove_tree(temporary)
            raise
        dirs.menu.sync()
    return boot_digest


def boot_digest_of(resource: Kernel | UkiFile, objects: ObjectSource) -> str:
    """Return the boot digest of what is in the repository, without writing it anywhere.

    Raises:
        DamagedKernel: as from :func:`publish_kernel`.
        PeError: a unified kernel image is none.
        OSError: reading failed.
    """
    with doing("Reading the kernel of the image"):
        if isinstance(resource, UkiFile):
            with open_content(resource.leaf, objects) as file:
                return Uki.read(file).boot_digest()
        boot_digest = hashlib.sha256()
        for _, chunks in _kernel_chunks(resource, objects, boot_digest):
            for _ in chunks:
                pass
        return boot_digest.hexdigest()


def find_shared_kernel(dirs: BootDirs, boot_digest: str, candidates: Iterable[str]) -> str | None:
    """Return the first of these artifacts that holds a kernel with this boot digest.

    The files are read and hashed. One that is missing, damaged or half-written is no
    candidate, and neither is a directory with an old name, for which entries are not made.
    """
    for artifact in candidates:
        path = dirs.scheme.kernel_path(schemes.kernel_dir(artifact))
        digest = hashlib.sha256()
        try:
            for name in (VMLINUZ, INITRD):
                with open(dirs.menu.open_regular(f"{path}/{name}"), "rb") as file:
                    while chunk := file.read(CHUNK_BYTES):
                        digest.update(chunk)
        except OSError:
            continue
        if digest.hexdigest() == boot_digest:
            return artifact
    return None


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


def files_below(root: Dir, path: str) -> Iterator[os.stat_result]:
    """Yield what is known of every file at or below a path; nothing if there is nothing.

    What is mounted below is no part of it.
    """
    try:
        info = root.stat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(info.st_mode):
        yield info
        return
    with root.open_dir(path) as top, Descent(top.fileno(), top.path, cross_mounts=False) as way:
        # A list instead of recursion: names may be nested deeper than Python calls.
        pending = [os.listdir(way.fileno())]
        while pending:
            if not pending[-1]:
                pending.pop()
                if pending:
                    way.leave()
                continue
            name = pending[-1].pop()
            info = os.stat(name, dir_fd=way.fileno(), follow_symlinks=False)
            if not stat.S_ISDIR(info.st_mode):
                yield info
                continue
            with contextlib.suppress(MountPoint):
                pending.append(os.listdir(way.enter(name)))


def free_space(root: Dir, *, reserved: bool = False) -> tuple[int, int]:
    """Return how many bytes are free in a file system of boot files, and a cluster's size there.

    With ``reserved`` those count that ext4 keeps for root.
    """
    volume = os.statvfs(root.fileno())
    free = volume.f_bfree if reserved else volume.f_bavail
    return free * volume.f_frsize, volume.f_frsize


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


def _write_kernel(dirs: BootDirs, path: str, kernel: Kernel, objects: ObjectSource) -> str:
    boot_digest = hashlib.sha256()
    with dirs.menu.ensure_dir(path) as directory:
        # As with the beginning of a file (bootc.boot.writing): its name is on the disk first.
        dirs.menu.sync()
        for name, chunks in _kernel_chunks(kernel, objects, boot_digest):
            write_stream(directory, name, chunks)
    dirs.menu.sync()
    return boot_digest.hexdigest()


def _kernel_chunks(
    kernel: Kernel, objects: ObjectSource, boot_digest: hashlib._Hash
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield name and content of both files, hashing what is read of them."""
    for name, leaf in ((VMLINUZ, kernel.vmlinuz), (INITRD, kernel.initramfs)):
        yield name, _hashed(checked_chunks(leaf, objects, name), boot_digest)


def _hashed(chunks: Iterator[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


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
