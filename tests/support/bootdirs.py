"""Boot partitions as directories, one for each combination of loader and boot type."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from bootc.boot.loader import Bootloader
from bootc.boot.menu_compose import NewItem, new_item
from bootc.boot.scheme import BootDirs, Scheme
from bootc.formats.cmdline import composefs_karg
from bootc.formats.digest import Digest
from bootc.formats.origin import BootType
from bootc.formats.osrelease import OsRelease
from bootc.fs.dir import Dir
from support.firmware import firmware_of

SYSTEMD = Scheme(Bootloader.SYSTEMD, BootType.BLS)
SYSTEMD_UKI = Scheme(Bootloader.SYSTEMD, BootType.UKI)
GRUB_CC = Scheme(Bootloader.GRUB_CC, BootType.BLS)
GRUB = Scheme(Bootloader.GRUB, BootType.BLS)
GRUB_GENERATED = Scheme(Bootloader.GRUB, BootType.BLS, generated=True)
GRUB_UKI = Scheme(Bootloader.GRUB, BootType.UKI)
#: The firmware starts the unified kernel images.
NONE_UKI = Scheme(Bootloader.NONE, BootType.UKI)
#: ukiboot starts one of two partitions.
UKIBOOT = Scheme(Bootloader.UKIBOOT, BootType.ABOOT)
#: The loaders and the boot types with a boot menu.
MENU_LOADERS = (Bootloader.GRUB, Bootloader.GRUB_CC, Bootloader.SYSTEMD)
MENU_BOOT_TYPES = (BootType.BLS, BootType.UKI)
#: The schemes of loaders that read a menu from files.
FILE_SCHEMES = (SYSTEMD, SYSTEMD_UKI, GRUB_CC, GRUB, GRUB_GENERATED, GRUB_UKI)
SCHEMES = (*FILE_SCHEMES, NONE_UKI)

FEDORA = OsRelease({"ID": "fedora", "VERSION_ID": "43", "PRETTY_NAME": "Fedora Linux 43"})


def scheme_name(scheme: Scheme) -> str:
    generated = "-generated" if scheme.generated else ""
    return f"{scheme.bootloader}-{scheme.boot_type}{generated}"


def deployment(number: int) -> Digest:
    """Return one of 256 deployments."""
    return Digest.from_hex(f"{number:02x}" * 64)


def item_of(
    scheme: Scheme, number: int, os_release: OsRelease = FEDORA, *, karg: str = "rw"
) -> NewItem:
    """Return a deployment that is new to the menu."""
    digest = deployment(number)
    if scheme.boot_type.is_unified:
        return new_item(scheme, digest, os_release)
    options = f"{karg} {composefs_karg(digest.hex, optional=False)}"
    return new_item(scheme, digest, os_release, options=options)


@contextlib.contextmanager
def open_boot(path: Path, scheme: Scheme) -> Iterator[BootDirs]:
    """Open ``path/esp`` and ``path/boot``, making them when they are missing."""
    for name in ("esp", "boot"):
        (path / name).mkdir(exist_ok=True)
    menu = path / ("esp" if scheme.menu_on_esp else "boot")
    binaries = path / ("esp" if scheme.binaries_on_esp else "boot")
    with Dir.open(menu) as menu_dir, Dir.open(binaries) as binaries_dir:
        yield BootDirs(scheme, menu_dir, binaries_dir, firmware=firmware_of(path, scheme))
