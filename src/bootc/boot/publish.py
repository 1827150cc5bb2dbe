"""Putting a deployment where the machine boots from, and taking it away again.

Kernels first, then the menu that names them. Promises, on FAT, which has no journal:

* a file under its final name is whole, and on the disk when the call returns;
* what the boot loader reads as the menu is never written to. The next menu is written
  beside it and takes its place in one step, :func:`commit_staged`, the moment from which
  the machine boots otherwise;
* everything here can be interrupted anywhere and done again. Committing twice is
  committing once, although exchanging directories twice would be nothing;
* what is not ours in a menu comes along, as it is at the moment of the commit.

A file in the staged directory marks it as complete; with the exchange the mark comes
into the live one, where it says that the other is the menu of before, to be deleted.
GRUB's ``user.cfg`` is a file, which a rename replaces.
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
from bootc.boot.foreign import carry_foreign
from bootc.boot.menu import MARK, MAX_MENU_BYTES, Item, files_of, is_foreign
from bootc.boot.scheme import INITRD, UKIS, USER_CFG, VMLINUZ, BootDirs
from bootc.boot.uki import publish_uki
from bootc.boot.writing import write_stream
from bootc.errors import Error, doing, one_line
from bootc.formats import grubcfg
from bootc.formats.digest import Digest
from bootc.formats.grubcfg import GrubCfgError, MenuEntry
from bootc.formats.pe import Uki
from bootc.fs import atomic
from bootc.fs.descent import Descent, MountPoint
from bootc.fs.dir import Dir

_log = logging.getLogger(__name__)


class StagedMenuIncomplete(Error):
    """The staged menu was not written to its end, so that it cannot be committed."""


class ArtifactKind(enum.StrEnum):
    """What an artifact is."""

    #: A directory with a kernel and its initramfs.
    KERNEL = "kernel"
    #: A unified kernel image, with what is added to it.
    UKI = "uki"
    #: What an interrupted call left under a temporary name.
    LEFTOVER = "leftover"


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
    deployments with equal ones start alike.

    Raises:
        DamagedKernel: what is stored is not what the image names.
        OSError: reading or writing failed.
    """
    path = dirs.scheme.kernel_path(schemes.kernel_dir(deployment.hex))
    with doing(f"Writing the kernel to {dirs.menu.path}/{path}"):
        boot_digest = hashlib.sha256()
        with dirs.menu.ensure_dir(path) as directory:
            # As with the beginning of a file (bootc.boot.writing): its name is on the disk first.
            dirs.menu.sync()
            for name, chunks in _kernel_chunks(kernel, objects, boot_digest):
                write_stream(directory, name, chunks)
        dirs.menu.sync()
    return boot_digest.hexdigest()


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
                with open(dirs.menu.open_file(f"{path}/{name}"), "rb") as file:
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
            path = dirs.scheme.kernel_path(name)
            if schemes.artifact_name(name) and stat.S_ISDIR(dirs.menu.stat(path).st_mode):
                found.append(_artifact(dirs.menu, ArtifactKind.KERNEL, name, path))
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
    root = dirs.menu if artifact.kind is ArtifactKind.KERNEL else dirs.binaries
    paths = [artifact.path]
    if artifact.kind is ArtifactKind.UKI:
        # The image goes first: a start without its additions would be another start.
        paths.append(schemes.addons_dir(artifact.path))
    with doing(f"Removing {root.path}/{artifact.path}"):
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                root.remove_tree(path)


def whole_file(dirs: BootDirs, entries: Iterable[MenuEntry]) -> bytes:
    """Return GRUB's menu of these entries and what others have put into the live one.

    Raises:
        OSError: the live one cannot be read.
    """
    try:
        data = dirs.menu.read_bytes(dirs.scheme.entries, MAX_MENU_BYTES)
        foreign = [entry for entry in grubcfg.parse_menu(data) if is_foreign(entry)]
        settings = grubcfg.parse_settings(data)
    except (FileNotFoundError, GrubCfgError):
        return grubcfg.serialise_menu(entries)
    return grubcfg.serialise_menu([*entries, *foreign], settings)


def write_staged(dirs: BootDirs, files: Iterable[tuple[str, bytes]]) -> None:
    """Write the staged menu, in place of an older one; it is on the disk afterwards.

    Args:
        dirs: Where.
        files: What :func:`bootc.boot.entries.compose_menu` returned.

    Raises:
        OSError: writing failed. There is no staged menu then.
    """
    discard_staged(dirs)
    menu, path = dirs.menu, dirs.scheme.staged
    with doing(f"Writing the next boot menu to {menu.path}/{path}"):
        try:
            if dirs.scheme.menu_is_file:
                _write_file(dirs, files)
            else:
                _write_directory(dirs, files)
        except BaseException:
            with contextlib.suppress(OSError):
                menu.remove_tree(path)
            raise


def commit_staged(dirs: BootDirs) -> bool:
    """Put the staged menu in the place of the live one.

    When it returns the change is on the disk. That the menu of before cannot be
    deleted does not make it fail; the next one to be staged tries again.

    Returns:
        False when nothing was staged, or all that was has been committed.

    Raises:
        StagedMenuIncomplete: what is staged is not whole.
        OSError: reading or writing failed; the live menu is the old one then, unless it
            was the last sync that failed.
    """
    with doing(f"Replacing the boot menu {dirs.menu.path}/{dirs.scheme.entries}"):
        if dirs.scheme.menu_is_file:
            return _commit_file(dirs)
        committed = _commit_directory(dirs)
    try:
        _clean_up(dirs)
    except OSError as exc:
        _log.warning("the boot menu of before stays for now: %s", one_line(exc))
    return committed


def discard_staged(dirs: BootDirs) -> None:
    """Delete the staged menu, whatever state it is in; none is fine.

    Raises:
        OSError: it cannot be deleted.
    """
    with doing(f"Deleting {dirs.menu.path}/{dirs.scheme.staged}"):
        if not dirs.scheme.menu_is_file:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                # Unmarked first: half of a menu must not look like one.
                dirs.menu.unlink(f"{dirs.scheme.staged}/{MARK}")
                dirs.menu.sync()
        _clean_up(dirs)


def remove_entry(dirs: BootDirs, item: Item) -> None:
    """Remove an entry of the live menu, and any other that boots the same deployment.

    That the rest still has one to boot by default is up to the caller.

    Raises:
        OSError: it cannot be removed.
    """
    with doing(f"Removing the boot entry {item.name!a}"):
        for live in dirs.scheme.menus:
            parent, _, name = live.rpartition("/")
            try:
                directory = dirs.menu.open_dir(parent if live == USER_CFG else live)
            except FileNotFoundError:
                continue
            with directory:
                if live == USER_CFG:
                    _remove_from_file(directory, name, item.deployment)
                else:
                    for entry in files_of(directory, item.deployment):
                        directory.unlink(entry)
                os.fsync(directory.fileno())


def _remove_from_file(directory: Dir, name: str, deployment: Digest) -> None:
    try:
        data = directory.read_bytes(name, MAX_MENU_BYTES)
        entries = grubcfg.parse_menu(data)
    except (FileNotFoundError, GrubCfgError):
        return  # Nothing in there can be booted.
    kept = [e for e in entries if schemes.uki_artifact(e.chainloader or "") != deployment.hex]
    if len(kept) != len(entries):
        menu = grubcfg.serialise_menu(kept, grubcfg.parse_settings(data))
        write_stream(directory, name, [menu])


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


def _write_directory(dirs: BootDirs, files: Iterable[tuple[str, bytes]]) -> None:
    with dirs.menu.ensure_dir(dirs.scheme.staged) as staged:
        for name, data in files:
            atomic.write_file(staged, name, data, durable=True)
        _carry(dirs, staged)
        dirs.menu.sync()
        atomic.write_file(staged, MARK, b"", durable=True)


def _commit_directory(dirs: BootDirs) -> bool:
    menu, live, path = dirs.menu, dirs.scheme.entries, dirs.scheme.staged
    if not menu.exists(f"{path}/{MARK}"):
        if menu.exists(path) and not menu.exists(f"{live}/{MARK}"):
            raise StagedMenuIncomplete(
                f"the staged boot menu {menu.path}/{path} is not complete",
                hint="stage the update again",
            )
        return False
    menu.ensure_dir(live).close()
    with menu.open_dir(path) as staged:
        _carry(dirs, staged)
    menu.sync()
    parent, _, name = live.rpartition("/")
    with menu.open_dir(parent) as directory:
        atomic.exchange(directory, path.rpartition("/")[2], name)
    # Not fsync of the parent: FAT keeps an exchange in the two inodes until they are written.
    menu.sync()
    return True


def _clean_up(dirs: BootDirs) -> None:
    """Delete what has the name of the staged menu, and then the mark of a commit."""
    with contextlib.suppress(FileNotFoundError):
        dirs.menu.remove_tree(dirs.scheme.staged)
    if not dirs.scheme.menu_is_file:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            dirs.menu.unlink(f"{dirs.scheme.entries}/{MARK}")


def _carry(dirs: BootDirs, staged: Dir) -> None:
    try:
        live = dirs.menu.open_dir(dirs.scheme.entries)
    except FileNotFoundError:
        return
    with live:
        carry_foreign(live, staged)


def _write_file(dirs: BootDirs, files: Iterable[tuple[str, bytes]]) -> None:
    entries = [entry for _, data in files for entry in grubcfg.parse_menu(data)]
    with contextlib.suppress(FileNotFoundError):
        try:
            grubcfg.parse_menu(dirs.menu.read_bytes(dirs.scheme.entries, MAX_MENU_BYTES))
        except GrubCfgError as exc:
            # GRUB stops at the error too, so that nothing is lost which could be booted.
            _log.warning("replacing the damaged %s: %s", dirs.scheme.entries, exc.message)
    parent, _, name = dirs.scheme.staged.rpartition("/")
    with dirs.menu.ensure_dir(parent) as directory:
        write_stream(directory, name, [whole_file(dirs, entries)])


def _commit_file(dirs: BootDirs) -> bool:
    menu, path = dirs.menu, dirs.scheme.staged
    try:
        data = menu.read_bytes(path, MAX_MENU_BYTES)
    except FileNotFoundError:
        return False
    try:
        entries = [entry for entry in grubcfg.parse_menu(data) if not is_foreign(entry)]
    except GrubCfgError as exc:
        raise StagedMenuIncomplete(
            f"the staged boot menu {menu.path}/{path} is damaged: {exc.message}",
            hint="stage the update again",
        ) from None
    parent, _, name = path.rpartition("/")
    with menu.open_dir(parent) as directory:
        current = whole_file(dirs, entries)
        if current != data:
            write_stream(directory, name, [current])
        directory.rename(name, dirs.scheme.entries.rpartition("/")[2])
    menu.sync()
    return True
