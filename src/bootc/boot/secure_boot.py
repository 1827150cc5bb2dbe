"""What the firmware says of Secure Boot, and which programs of a boot have a signature.

Nothing here verifies a signature; the firmware does. A signature that is missing tells that the
firmware cannot have checked the program.

Source: UEFI specification 2.10, "Globally Defined Variables".
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass

from bootc.boot.firmware_entries import GLOBAL_GUID
from bootc.boot.loader import Bootloader
from bootc.boot.scheme import ADDON_SUFFIX, GLOBAL_ADDONS, BootDirs, addons_dirs
from bootc.boot.systemd_boot import loader_programs
from bootc.formats.pe import PeError
from bootc.formats.pesignature import is_signed
from bootc.fs.dir import Dir
from bootc.kernel import efivars

_VENDORS = "EFI"
_ADDONS = (f"*{ADDON_SUFFIX}",)
_GRUB_PROGRAMS = ("grub*.efi", "shim*.efi")
#: More directories of vendors are not looked into.
_MAX_VENDORS = 64


@dataclass(frozen=True, slots=True)
class SecureBoot:
    """The state of the firmware; None if it does not say.

    Attributes:
        enabled: The firmware starts only programs that it trusts.
        setup_mode: Anybody may replace its keys.
    """

    enabled: bool | None = None
    setup_mode: bool | None = None

    @property
    def enforced(self) -> bool:
        """Whether the firmware checks what it starts, by keys that are its owner's."""
        return self.enabled is True and self.setup_mode is False


@dataclass(frozen=True, slots=True)
class Program:
    """An EFI program on a boot partition.

    Attributes:
        path: Its path there.
        signed: Whether it has a signature; None if it cannot be read.
    """

    path: str
    signed: bool | None


@dataclass(frozen=True, slots=True)
class BootPrograms:
    """The programs that start the booted deployment.

    Attributes:
        loaders: The programs of the boot loader; empty if they are not on an open file system.
        uki: The unified kernel image, if the deployment has one.
        addons: The add-ons that its stub finds.
    """

    loaders: tuple[Program, ...] = ()
    uki: Program | None = None
    addons: tuple[Program, ...] = ()


def read_secure_boot(*, efivars_root: str = efivars.EFIVARS) -> SecureBoot:
    """Read the state of the firmware; on a machine without UEFI nothing is known.

    Raises:
        OSError: a variable exists but cannot be read.
    """

    def flag(name: str) -> bool | None:
        value = efivars.read_variable(name, GLOBAL_GUID, root=efivars_root)
        return None if not value else value[0] == 1

    return SecureBoot(flag("SecureBoot"), flag("SetupMode"))


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
        _program(dirs.binaries, path),
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
    try:
        with open(root.open_regular(path), "rb") as file:
            return Program(path, is_signed(file))
    except (PeError, OSError):
        return Program(path, None)
