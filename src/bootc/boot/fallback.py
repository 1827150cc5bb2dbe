"""The program that the firmware starts if it has no boot entry: ``EFI/BOOT/BOOTX64.EFI``.

Without a boot loader it is a copy of a unified kernel image, with its add-ons beside it (UEFI
specification 2.10, "Removable Media Boot Behavior"). bootc replaces no program of another system.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection

from bootc.boot.scheme import UKIS, BootDirs, addons_dir, uki_file
from bootc.errors import Error, doing
from bootc.formats.pe import Uki
from bootc.fs.atomic import write_stream
from bootc.fs.dir import same_content
from bootc.fs.visit import files_below

_DIRECTORY = "EFI/BOOT"
#: By the name that the kernel has for the machine.
_NAMES = {"x86_64": "BOOTX64.EFI", "aarch64": "BOOTAA64.EFI", "riscv64": "BOOTRISCV64.EFI"}
_NAME = _NAMES.get(os.uname().machine, "BOOTX64.EFI")
#: The path of the program on this kind of machine.
FALLBACK = f"{_DIRECTORY}/{_NAME}"


class NoFallback(Error):
    """The program that the firmware starts by itself cannot be replaced."""


def fallback_artifacts(dirs: BootDirs) -> frozenset[str]:
    """Return the names that the artifact may have of which the fallback is a copy.

    They are the images that its kernel command line names. There are none if it does not exist,
    cannot be read or is not ours.
    """
    try:
        with open(dirs.binaries.open_regular(FALLBACK), "rb") as file:
            return frozenset(Uki.read(file).composefs_images().hexes)
    except (Error, OSError):
        return frozenset()


def fallback_bytes(dirs: BootDirs, artifact: str, menu: Collection[str | None]) -> int:
    """Return how many bytes more :func:`write_fallback` needs.

    Raises:
        OSError: the image or its add-ons cannot be read.
    """
    present = fallback_artifacts(dirs)
    if artifact in present:
        return 0
    wanted = _size(dirs, f"{UKIS}/{uki_file(artifact)}")
    return wanted if present.intersection(menu) else max(wanted - _size(dirs, FALLBACK), 0)


def write_fallback(dirs: BootDirs, artifact: str, menu: Collection[str | None]) -> None:
    """Make the fallback a copy of a unified kernel image, unless it is one already.

    The program is replaced in one step, and its add-ons before. Only if there is not enough space
    for both, and the old program starts no deployment of the menu, it is removed first.

    Args:
        dirs: The boot partition.
        artifact: The name of the image.
        menu: The artifacts of the menu.

    Raises:
        NoFallback: the program there belongs to another system.
        OSError: reading or writing failed. The old program is complete, or it is removed.
    """
    path = f"{UKIS}/{uki_file(artifact)}"
    with doing(f"Writing {dirs.binaries.path}/{FALLBACK}"):
        present = fallback_artifacts(dirs)
        if dirs.binaries.exists(FALLBACK) and not present:
            raise NoFallback(
                "it belongs to another system",
                hint="remove it, if the machine shall boot without boot entries of its firmware",
            )
        if artifact in present and _same(dirs, path, FALLBACK):
            _copy_addons(dirs, path, FALLBACK)
            return
        if not present.intersection(menu) and _free(dirs) < _size(dirs, path):
            for old in (FALLBACK, addons_dir(FALLBACK)):
                with contextlib.suppress(FileNotFoundError):
                    dirs.binaries.remove_tree(old)
        _copy_addons(dirs, path, FALLBACK)
        with dirs.binaries.ensure_dir(_DIRECTORY) as directory:
            write_stream(directory, _NAME, dirs.binaries.read_chunks(path))
        dirs.binaries.sync()


def has_other_addons(dirs: BootDirs, artifact: str) -> bool:
    """Tell whether the fallback exists with other add-ons than a unified kernel image has.

    Raises:
        OSError: add-ons cannot be read.
    """
    path = f"{UKIS}/{uki_file(artifact)}"
    if not dirs.binaries.exists(FALLBACK):
        return False
    wanted, found = _addons(dirs, path), _addons(dirs, FALLBACK)
    return wanted != found or any(
        not _same(dirs, f"{addons_dir(path)}/{name}", f"{addons_dir(FALLBACK)}/{name}")
        for name in wanted
    )


def _copy_addons(dirs: BootDirs, path: str, current: str) -> None:
    """Give the program at ``current`` the add-ons of the one at ``path``."""
    wanted, found = _addons(dirs, path), _addons(dirs, current)
    source, target = addons_dir(path), addons_dir(current)
    for name in wanted:
        if name not in found or not _same(dirs, f"{source}/{name}", f"{target}/{name}"):
            with dirs.binaries.ensure_dir(target) as directory:
                write_stream(directory, name, dirs.binaries.read_chunks(f"{source}/{name}"))
    for name in found - wanted:
        dirs.binaries.remove_tree(f"{target}/{name}")


def _size(dirs: BootDirs, path: str) -> int:
    """Return the bytes of a program and its add-ons."""
    parts = (part for part in (path, addons_dir(path)) if dirs.binaries.exists(part))
    return sum(info.st_size for part in parts for info in files_below(dirs.binaries, part))


def _free(dirs: BootDirs) -> int:
    volume = os.statvfs(dirs.binaries.fileno())
    return volume.f_bavail * volume.f_frsize


def _addons(dirs: BootDirs, path: str) -> set[str]:
    try:
        with dirs.binaries.open_dir(addons_dir(path)) as directory:
            return set(directory.names())
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _same(dirs: BootDirs, path: str, other: str) -> bool:
    """Tell whether two files have the same content."""
    return same_content(dirs.binaries, path, dirs.binaries, other)
