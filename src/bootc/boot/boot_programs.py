"""Finds the EFI programs that start a deployment, and whether they have a signature."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from typing import BinaryIO

from bootc.boot.loader import Bootloader
from bootc.boot.scheme import ADDON_SUFFIX, GLOBAL_ADDONS, BootDirs, addons_dirs
from bootc.boot.secure_boot import BootPrograms, Program
from bootc.boot.systemd_boot import loader_programs
from bootc.boot.uki import open_installed
from bootc.formats.pe import PeError
from bootc.formats.pesignature import is_signed
from bootc.fs.dir import Dir

_VENDORS = "EFI"
_ADDONS = (f"*{ADDON_SUFFIX}",)
_GRUB_PROGRAMS = ("grub*.efi", "shim*.efi")
#: More directories of vendors are not looked into.
_MAX_VENDORS = 64


def read_programs(dirs: BootDirs, uki_path: str | None) -> BootPrograms:
    """Find the programs that start a deployment, and whether they have a signature.

    Args:
        dirs: The boot partition.
        uki_path: The path of the unified kernel image as entries write it, or None.

    Raises:
        OSError: a directory cannot be read.
    """
    loaders = tuple(_loaders(dirs))
    if uki_path is None:
        return BootPrograms(loaders)
    path = uki_path.lstrip("/")
    homes = (*addons_dirs(path), GLOBAL_ADDONS)
    addons = [addon for home in homes for addon in _matching(dirs.binaries, home, _ADDONS)]
    return BootPrograms(
        loaders,
        _opened(lambda: open_installed(dirs, path), path),
        tuple(_program(dirs.binaries, addon) for addon in addons),
    )


def _loaders(dirs: BootDirs) -> Iterator[Program]:
    """Yield the programs of the boot loader, if the ESP is open."""
    scheme = dirs.scheme
    if scheme.in_slots or not (scheme.menu_on_esp or scheme.binaries_on_esp):
        return
    esp = dirs.programs or dirs.binaries
    if scheme.bootloader is Bootloader.SYSTEMD:
        yield from (_program(esp, path) for path in loader_programs(esp))
    elif scheme.bootloader is not Bootloader.NONE:
        for vendor in _names(esp, _VENDORS)[:_MAX_VENDORS]:
            for path in _matching(esp, f"{_VENDORS}/{vendor}", _GRUB_PROGRAMS):
                yield _program(esp, path)


def _matching(root: Dir, home: str, patterns: tuple[str, ...]) -> list[str]:
    # FAT ignores the case of letters.
    return [
        f"{home}/{name}"
        for name in _names(root, home)
        if any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in patterns)
    ]


def _names(root: Dir, path: str) -> list[str]:
    try:
        with root.open_dir(path) as directory:
            return sorted(directory.names())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _program(root: Dir, path: str) -> Program:
    return _opened(lambda: open(root.open_regular(path), "rb"), path)


def _opened(open_file: Callable[[], BinaryIO], path: str) -> Program:
    try:
        with open_file() as file:
            return Program(path, is_signed(file))
    except (PeError, OSError):
        return Program(path, None)
