"""The programs of the boot loaders on an EFI system partition, with their settings.

These are the files that an installation writes there besides menus and kernels:

==============  ====================================================================
boot loader     files
==============  ====================================================================
systemd-boot    ``EFI/systemd``, ``EFI/BOOT``, ``loader/loader.conf``, ``loader/keys``
GRUB            ``EFI/<distribution>``, which GRUB's program names, and ``EFI/BOOT``
==============  ====================================================================

Directories of the firmware's programs count with the files in them and without their
subdirectories. Without a boot loader ``EFI/BOOT`` has a copy of a kernel
(:mod:`bootc.boot.fallback`).
"""

from __future__ import annotations

from collections.abc import Iterator

from bootc.boot.fallback import FALLBACK
from bootc.boot.loader import Bootloader
from bootc.errors import doing
from bootc.formats.grubefi import configuration_directory
from bootc.formats.grubembed import GrubImageError
from bootc.fs import atomic
from bootc.fs.dir import Dir

_BOOT = "EFI/BOOT"
_SYSTEMD = "EFI/systemd"
_SETTINGS = ("loader/loader.conf",)
#: Each directory in it has the keys of Secure Boot that systemd-boot can enrol.
_KEYS = "loader/keys"
#: GRUB's program has a name that begins like this, and is the fallback if there is no shim.
_GRUB_NAMES = ("grub", "boot")
_MAX_PROGRAM_BYTES = 32 << 20
#: A directory of programs has a few files.
_MAX_FILES = 64
#: The program that the firmware starts, by the beginning of its name, the best first.
_STARTED = {Bootloader.SYSTEMD: ("systemd-boot",), Bootloader.GRUB: ("shim", "grub")}
_TITLES = {Bootloader.SYSTEMD: "Linux Boot Manager"}


def program_files(bootloader: Bootloader, esp: Dir) -> tuple[str, ...]:
    """Return the paths of the programs and the settings on an ESP.

    The programs that the firmware starts by itself come last.

    Raises:
        OSError: a directory cannot be read.
    """
    with doing(f"Reading the programs on {esp.path}"):
        if bootloader is Bootloader.SYSTEMD:
            settings = [path for path in _SETTINGS if esp.is_file(path)]
            keys = [path for name in _names(esp, _KEYS) for path in _files(esp, f"{_KEYS}/{name}")]
            return (*settings, *keys, *_files(esp, _SYSTEMD), *_files(esp, _BOOT))
        if bootloader is Bootloader.GRUB:
            own = _grub_directory(esp)
            return (*(_files(esp, own) if own else ()), *_files(esp, _BOOT))
        return ()


def started_program(bootloader: Bootloader, esp: Dir) -> tuple[str, str] | None:
    """Return the path of the program that a boot entry of the firmware starts, and its title.

    The result is None if the ESP has no such program.

    Raises:
        OSError: a directory cannot be read.
    """
    if bootloader is Bootloader.NONE:
        return (FALLBACK, "bootc") if esp.is_file(FALLBACK) else None
    files = [path for path in program_files(bootloader, esp) if not path.startswith(_BOOT)]
    for beginning in _STARTED.get(bootloader, ()):
        for path in files:
            directory, _, name = path.rpartition("/")
            if name.lower().startswith(beginning) and name.lower().endswith(".efi"):
                # Debian's own installer names the entry after the directory.
                return path, _TITLES.get(bootloader, directory.rpartition("/")[2])
    return None


def _grub_directory(esp: Dir) -> str | None:
    """Return the directory with GRUB's configuration, which its program names."""
    for path in _files(esp, _BOOT):
        name = path.rpartition("/")[2].lower()
        if name.startswith(_GRUB_NAMES) and name.endswith(".efi"):
            try:
                return configuration_directory(esp.read_bytes(path, _MAX_PROGRAM_BYTES))
            except GrubImageError:
                continue  # It is shim.
    return None


def _files(esp: Dir, path: str) -> Iterator[str]:
    for name in _names(esp, path):
        if not name.startswith(atomic.FILE_PREFIX) and esp.is_file(f"{path}/{name}"):
            yield f"{path}/{name}"


def _names(esp: Dir, path: str) -> list[str]:
    try:
        with esp.open_dir(path) as directory:
            return directory.names(_MAX_FILES)
    except (FileNotFoundError, NotADirectoryError):
        return []
