"""Keeps the further ESPs of a machine the same as the main one.

If the root file system is on several disks, the machine shall boot from each of them. Therefore
each disk has an ESP, and bootc writes all of them: the main one, from which the machine was
started, and its mirrors. A mirror has the same programs of the boot loader, the same boot entries
of ours, and the kernels that these entries boot. It keeps its own entries of other systems and its
own boot counters.

Promises:

* The mirrors are brought to a new menu one after the other, before the main ESP is. A mirror
  boots its old menu or the new one at each moment: bootc adds kernels first, then exchanges the
  menus as on the main ESP (:mod:`bootc.boot.menu_write`), and removes kernels last. If the space
  of a mirror is too small for this order, kernels go first that only its old menu boots. The main
  ESP is not changed meanwhile.
* A mirror that cannot be read or written is a warning and ends nothing. The next change of the menu
  repairs it, because each one compares the whole mirror.
* bootc leaves an ESP alone that has only programs of another system.
* Each call can be interrupted at any point and repeated.

Kernels are large, and never change under the same name. So two of them are the same if they have
the same size, and a damaged kernel of the main ESP does not replace the one of a mirror.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from bootc.boot import addons, artifacts, menu_write, space
from bootc.boot import scheme as schemes
from bootc.boot.artifacts import WITH_KERNELS, Artifact, ArtifactKind, list_artifacts, root_of
from bootc.boot.fallback import fallback_artifacts, write_fallback
from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import Bootloader
from bootc.boot.loader_programs import program_files
from bootc.boot.menu_read import Item, Menu, read_files, read_menu_at
from bootc.boot.scheme import BootDirs, Mirror
from bootc.errors import Error, doing, one_line
from bootc.formats import bls
from bootc.formats.digest import Digest
from bootc.fs import atomic
from bootc.fs.atomic import write_stream
from bootc.fs.dir import Dir, same_content
from bootc.fs.visit import visit

_log = logging.getLogger(__name__)

#: Larger files of kernels are compared by their size.
_COMPARED_BYTES = 1 << 20
_PROGRAMS = "EFI"
#: Characters of a deployment id in messages.
_SHORT_ID = 12
_REPAIR = "the next update writes it again; at once: bootc internals composefs-gc"


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The state that a mirror shall have: a part of the content of the main ESP.

    Attributes:
        main: The main ESP.
        items: The deployments of the menu, in its order.
        entries: The names and the content of the boot entries; none if the menu is not on the ESP.
        kernels: The kernels of the deployments, and global add-ons.
        known: The names of all kernels of the main ESP.
        programs: The paths of the programs of the boot loader.
    """

    main: BootDirs
    items: tuple[Item, ...]
    entries: tuple[tuple[str, bytes], ...]
    kernels: tuple[Artifact, ...]
    known: frozenset[str]
    programs: tuple[str, ...]


def synchronise(dirs: BootDirs, *, staged: bool = False, without: Digest | None = None) -> None:
    """Bring all mirrors to a state of the main ESP. They are on their disks when this returns.

    A mirror that cannot be written is a warning. A menu without a deployment changes nothing.

    Args:
        dirs: The boot partition, with the mirrors.
        staged: Take the staged menu instead of the live one.
        without: Leave the entries of this deployment out.
    """
    if not dirs.mirrors:
        return
    try:
        wanted = _wanted(dirs, staged=staged, without=without)
    except (Error, OSError) as exc:
        _log.warning("the further EFI system partitions are not written: %s", one_line(exc))
        return
    if wanted.items:
        for mirror in dirs.mirrors:
            with _tolerated(mirror) as target:
                if target is not None and _is_ours(dirs, target):
                    _bring(target, wanted, mirror.device)


def copy_kernel(dirs: BootDirs, deployment: Digest) -> None:
    """Copy the new kernel of a deployment to all mirrors, before a menu names it.

    A mirror that cannot be written is a warning.
    """
    for mirror in dirs.mirrors:
        with _tolerated(mirror) as target:
            if target is not None and _is_ours(dirs, target):
                found = _kernels_on_esp(dirs)
                new = [artifact for artifact in found if artifact.name == deployment.hex]
                known = {artifact.name for artifact in found}
                _copy_kernels(dirs, target, new, known, mirror.device)


def copy_global_addons(dirs: BootDirs) -> None:
    """Copy the global add-ons of the administrator to all mirrors.

    A mirror that cannot be written is a warning.
    """
    for mirror in dirs.mirrors:
        with _tolerated(mirror) as target:
            if target is not None and _is_ours(dirs, target):
                known = {artifact.name for artifact in _kernels_on_esp(dirs)}
                _copy_kernels(dirs, target, _own_addons(dirs), known, mirror.device)


def remove_addon(dirs: BootDirs, path: str) -> None:
    """Remove an add-on from all mirrors, before it is removed from the main ESP.

    In this order an interruption leaves a mirror that lacks it, and the next change copies it
    again. A mirror that cannot be written is a warning.
    """
    for mirror in dirs.mirrors:
        with _tolerated(mirror) as target:
            if target is not None and _is_ours(dirs, target):
                addons.remove_addon(target, path)


def remove_artifact(dirs: BootDirs, artifact: Artifact) -> None:
    """Remove an artifact of the main ESP from all mirrors whose menu does not need it.

    A failure is no warning: the artifact is removed when the mirror is written the next time.
    """
    for mirror in dirs.mirrors:
        with _tolerated(mirror, logging.DEBUG) as target:
            if target is None or artifact.name in _booted_artifacts(target):
                continue
            for found in _kernels_on_esp(target):
                if (found.name, found.kind) == (artifact.name, artifact.kind):
                    artifacts.remove_artifact(target, found)


def release(dirs: BootDirs, deployment: Digest) -> None:
    """Bring all mirrors to the live menu, if one of them boots a deployment that this does not.

    The caller removes the state of the deployment afterwards. An interrupted update left such a
    mirror: its menu is the new one, and that of the main ESP is the old one.
    """
    if not dirs.mirrors or _boots(read_files(dirs, staged=False), deployment):
        return
    for mirror in dirs.mirrors:
        if mirror.dirs is not None and _boots(read_files(mirror.dirs, staged=False), deployment):
            synchronise(dirs)
            return


def compare(dirs: BootDirs) -> tuple[Finding, ...]:
    """Return how the mirrors differ from the main ESP: one finding for each that does."""
    try:
        wanted = _wanted(dirs)
    except (Error, OSError) as exc:
        return (Finding(FindingKind.UNREADABLE, dirs.esp.path, one_line(exc)),)
    mirrors = dirs.mirrors if wanted.items else ()
    return tuple(finding for mirror in mirrors for finding in _compared(mirror, wanted))


def _compared(mirror: Mirror, wanted: _Wanted) -> Iterator[Finding]:
    if mirror.dirs is None:
        text = f"it cannot be opened, so nothing keeps it up to date: {mirror.problem}"
        yield Finding(FindingKind.UNREADABLE, mirror.device, text)
        return
    try:
        if not _is_ours(wanted.main, mirror.dirs):
            text = (
                "it has programs of another system, so updates leave it alone unless it is emptied"
            )
            yield Finding(FindingKind.FOREIGN, mirror.device, text)
            return
        difference = _difference(mirror.dirs, wanted)
    except (Error, OSError) as exc:
        yield Finding(FindingKind.UNREADABLE, mirror.device, one_line(exc))
        return
    if difference is not None:
        main = wanted.main.esp.path
        text = f"it differs from the EFI system partition {main}: {difference} ({_REPAIR})"
        yield Finding(FindingKind.OUTDATED, mirror.device, text)


@contextlib.contextmanager
def _tolerated(mirror: Mirror, level: int = logging.WARNING) -> Iterator[BootDirs | None]:
    """Yield the file systems of a mirror, if it can be opened. A failure of the block is logged.

    Nothing else depends on a mirror, and the others can still be written.
    """
    problem = mirror.problem
    try:
        yield mirror.dirs
    except (Error, OSError) as exc:
        problem = one_line(exc)
    if problem:
        text = "the EFI system partition %s is not up to date: %s"
        _log.log(level, text, mirror.device, problem)


def _wanted(dirs: BootDirs, *, staged: bool = False, without: Digest | None = None) -> _Wanted:
    menu = read_files(dirs, staged=staged)
    if dirs.firmware is not None and not staged:
        from bootc.boot.firmware_order import read_started

        # Without a boot loader the firmware has the menu. An interruption can leave an older record
        # on the main ESP, which the next boot renews. Until then there is nothing to copy.
        if read_started(dirs, dirs.firmware).deployments != menu.deployments:
            menu = Menu()
    items = tuple(item for item in menu.items if item.deployment != without)
    names = {item.artifact for item in items}
    kernels = _kernels_on_esp(dirs)
    return _Wanted(
        main=dirs,
        items=items,
        entries=tuple(_entries(dirs, items, staged=staged)) if dirs.scheme.menu_on_esp else (),
        kernels=(
            *(k for k in kernels if k.name in names or k.kind is ArtifactKind.ADDON),
            *_own_addons(dirs),
        ),
        known=frozenset(kernel.name for kernel in kernels),
        programs=program_files(dirs.scheme.bootloader, dirs.esp),
    )


def _entries(dirs: BootDirs, items: Sequence[Item], *, staged: bool) -> Iterator[tuple[str, bytes]]:
    path = dirs.scheme.staged if staged else dirs.scheme.entries
    for item in items:
        yield item.name, dirs.menu.read_bytes(f"{path}/{item.name}", bls.MAX_ENTRY_BYTES)


def _kernels_on_esp(dirs: BootDirs) -> list[Artifact]:
    """Return the kernels and global add-ons of ours on an ESP, or on the XBOOTLDR beside it."""
    scheme = dirs.scheme
    if not scheme.menu_on_esp and not scheme.binaries_on_esp:
        return []
    found = (*list_artifacts(dirs), *artifacts.list_global_addons(dirs))
    return [a for a in found if scheme.menu_on_esp or a.kind not in WITH_KERNELS]


def _own_addons(dirs: BootDirs) -> tuple[Artifact, ...]:
    """Return the global add-ons of the administrator, which all ESPs shall have."""
    return artifacts.list_own_addons(dirs) if dirs.scheme.binaries_on_esp else ()


def _boots(menu: Menu, deployment: Digest) -> bool:
    return any(item.boots(deployment) for item in menu.items)


def _booted_artifacts(dirs: BootDirs) -> set[str | None]:
    return {item.artifact for item in read_files(dirs, staged=False).items}


def _is_ours(main: BootDirs, mirror: BootDirs) -> bool:
    """Tell whether bootc may write to an ESP: it is empty, or has something that bootc wrote."""
    if mirror.scheme.menu_on_esp and read_files(mirror, staged=False).items:
        return True
    if _kernels_on_esp(mirror):
        return True
    esp = mirror.esp
    if any(
        same_content(main.esp, path, esp, path)
        for path in program_files(main.scheme.bootloader, main.esp)
    ):
        return True
    return not _has_files(esp)


def _has_files(esp: Dir) -> bool:
    """Tell whether an ESP has any program."""
    try:
        with esp.open_dir(_PROGRAMS) as directory:
            return any(
                # An interrupted write leaves a temporary name.
                not entry.is_dir(follow_symlinks=False)
                and not entry.name.startswith(atomic.FILE_PREFIX)
                for _, _, entry in visit(directory)
            )
    except (FileNotFoundError, NotADirectoryError):
        return False


def _bring(mirror: BootDirs, wanted: _Wanted, device: str) -> None:
    """Bring a mirror to the wanted state: kernels first, and the menu when all is there for it."""
    with doing(f"Writing to {device}"):
        _copy_kernels(wanted.main, mirror, wanted.kernels, wanted.known, device)
        for path in wanted.programs:
            _copy_program(wanted.main.esp, mirror.esp, path)
        fallback = _fallback(mirror, wanted)
        if fallback is not None:
            write_fallback(mirror, fallback, [item.artifact for item in wanted.items])
        _write_menu(mirror, wanted)
        booted = _booted_artifacts(mirror) | {item.artifact for item in wanted.items}
        for kernel in _kernels_on_esp(mirror):
            if kernel.name not in booted and kernel.name not in wanted.known:
                artifacts.remove_artifact(mirror, kernel)
        mirror.menu.sync()
        mirror.esp.sync()


def _fallback(mirror: BootDirs, wanted: _Wanted) -> str | None:
    """Return the kernel that a firmware without boot entries shall start, if it does not."""
    if mirror.scheme.bootloader is not Bootloader.NONE:
        return None
    # As on the main ESP: the second deployment has booted here.
    names = [item.artifact for item in wanted.items]
    name = next(iter(names[1:2] or names[:1]))
    return None if name in fallback_artifacts(mirror) else name


def _write_menu(mirror: BootDirs, wanted: _Wanted) -> None:
    if not mirror.scheme.menu_on_esp:
        return
    if _has_menu(mirror, wanted):
        menu_write.discard_staged(mirror)
        return
    menu_write.write_staged(mirror, wanted.entries)
    menu_write.commit_staged(mirror, wanted.items[0].deployment)


def _has_menu(mirror: BootDirs, wanted: _Wanted) -> bool:
    """Tell whether the menu of a mirror has the wanted entries, and no damaged ones of ours."""
    menu = read_menu_at(mirror, mirror.scheme.entries)
    damaged = any(
        finding.kind is not FindingKind.FOREIGN and finding.subject not in menu.foreign
        for finding in menu.findings
    )
    return not damaged and _by_name(menu.items) == _by_name(wanted.items)


def _by_name(items: Sequence[Item]) -> dict[str, object]:
    # Each ESP has boot counters of its own. FAT ignores the case of letters.
    return {bls.without_counter(item.name).lower(): item.entry for item in items}


def _copy_kernels(
    main: BootDirs,
    mirror: BootDirs,
    kernels: Sequence[Artifact],
    known: Collection[str],
    device: str,
) -> None:
    lacking = {kernel: _lacking(main, mirror, kernel) for kernel in kernels}
    new = {
        f"{path.rpartition('/')[2]} of {kernel.name[:_SHORT_ID]}": root_of(main, kernel)
        .stat(path)
        .st_size
        for kernel, paths in lacking.items()
        for path in paths
    }
    if new:
        _make_room(mirror, {kernel.name for kernel in kernels}, known, new, device)
    for kernel in kernels:
        _copy_kernel(main, mirror, kernel, lacking[kernel])


def _make_room(
    mirror: BootDirs,
    wanted: set[str],
    known: Collection[str],
    new: dict[str, int],
    device: str,
) -> None:
    """Remove kernels of a mirror, as few as are needed for new files."""
    kernels = _kernels_on_esp(mirror)
    booted = {name for name in _booted_artifacts(mirror) if name is not None}
    # Kernels that the old menu of the mirror boots are removed only if nothing else helps.
    for needed in ({*wanted, *known, *booted}, wanted):
        room = space.free_space(mirror.binaries)
        try:
            plan = space.plan_space(kernels, needed, new, *room, where=device)
        except space.NoSpaceOnBoot:
            if needed is wanted:
                raise
            continue
        for kernel in plan.evict:
            artifacts.remove_artifact(mirror, kernel)
        return


def _lacking(main: BootDirs, mirror: BootDirs, kernel: Artifact) -> list[str]:
    """Return the paths of the files of a kernel that a mirror has not, or has differently."""
    source, target = root_of(main, kernel), root_of(mirror, kernel)
    return [path for path in _files(source, kernel) if not _is_same(source, target, path)]


def _is_same(source: Dir, target: Dir, path: str) -> bool:
    if not target.is_file(path):
        return False
    size = source.stat(path).st_size
    if size > _COMPARED_BYTES:
        return target.stat(path).st_size == size
    return same_content(source, path, target, path)


def _files(root: Dir, kernel: Artifact) -> list[str]:
    """Return the paths of the files of a kernel; its unified kernel image after the add-ons."""
    if kernel.kind is ArtifactKind.KERNEL:
        return _below(root, kernel.path)
    homes = schemes.addons_dirs(kernel.path) if kernel.kind is ArtifactKind.UKI else ()
    return [*(path for directory in homes for path in _below(root, directory)), kernel.path]


def _below(root: Dir, path: str) -> list[str]:
    try:
        with root.open_dir(path) as directory:
            names = [name for name in directory.names() if directory.is_file(name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [f"{path}/{name}" for name in names if not name.startswith(atomic.FILE_PREFIX)]


def _copy_kernel(
    main: BootDirs, mirror: BootDirs, kernel: Artifact, lacking: Sequence[str]
) -> None:
    source, target = root_of(main, kernel), root_of(mirror, kernel)
    # An add-on that the main ESP has not would change what the kernel does.
    for path in _surplus(source, target, kernel):
        target.remove_tree(path)
    if not lacking:
        return
    if kernel.kind is not ArtifactKind.KERNEL or target.exists(kernel.path):
        for path in lacking:
            _copy(source, path, target, path)
        target.sync()
        return
    # As when a kernel is written: the directory gets its name when all files are in it.
    parent, _, name = kernel.path.rpartition("/")
    temporary = f"{parent}/{atomic.FILE_PREFIX}{name}".lstrip("/")
    try:
        for path in lacking:
            _copy(source, path, target, f"{temporary}/{path.rpartition('/')[2]}")
        target.rename(temporary, kernel.path)
    except BaseException:
        with contextlib.suppress(OSError):
            target.remove_tree(temporary)
        raise
    target.sync()


def _surplus(source: Dir, target: Dir, kernel: Artifact) -> list[str]:
    if kernel.kind is not ArtifactKind.UKI:
        return []
    return sorted(set(_files(target, kernel)).difference(_files(source, kernel)))


def _copy_program(source: Dir, target: Dir, path: str) -> None:
    if not same_content(source, path, target, path):
        _copy(source, path, target, path)


def _copy(source: Dir, path: str, target: Dir, new_path: str) -> None:
    parent, _, name = new_path.rpartition("/")
    with doing(f"Copying {path}"), target.ensure_dir(parent) as directory:
        write_stream(directory, name, source.read_chunks(path))


def _difference(mirror: BootDirs, wanted: _Wanted) -> str | None:
    """Return the first thing in which a mirror differs from the wanted state, or None."""
    if mirror.scheme.menu_on_esp and not _has_menu(mirror, wanted):
        return "its boot entries are others"
    for kernel in wanted.kernels:
        source, target = root_of(wanted.main, kernel), root_of(mirror, kernel)
        for path in (*_lacking(wanted.main, mirror, kernel), *_surplus(source, target, kernel)):
            return f"/{path} is missing or another one"
    for path in wanted.programs:
        if not same_content(wanted.main.esp, path, mirror.esp, path):
            return f"/{path} is missing or another one"
    if _fallback(mirror, wanted) is not None:
        return "EFI/BOOT starts no deployment that it should"
    return None
