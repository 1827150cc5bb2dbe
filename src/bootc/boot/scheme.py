"""Where a machine keeps what it boots from: by boot loader, and by kind of kernel.

Owns the paths and names which tie a deployment to its files, for the four
combinations of loader and boot type. Pure.

=================  ==========================================  =========================
scheme             menu, below the ESP or ``/sysroot/boot``    kernels
=================  ==========================================  =========================
systemd, grub-cc   ESP: ``loader/entries/``                    ESP: ``EFI/Linux/<name>/``
the same, UKI      ESP: ``loader/entries/``                    ESP: ``EFI/Linux/bootc/``
grub               boot: ``loader/entries/``                   boot: ``<name>/``
grub, UKI          boot: ``grub2/user.cfg``                    ESP: ``EFI/Linux/bootc/``
=================  ==========================================  =========================

A kernel and its initramfs are ``vmlinuz`` and ``initrd`` in the directory
``bootc_composefs-<image id>``, a unified kernel image is the file
``bootc_composefs-<image id>.efi``. Older installations have the same names without
the prefix. An *artifact* is such a thing, and its name is the image id of the deployment
that brought it: others may use it as well.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from bootc.boot.loader import Bootloader
from bootc.formats.digest import Digest, DigestError
from bootc.formats.origin import BootType
from bootc.fs.dir import Dir

VMLINUZ = "vmlinuz"
INITRD = "initrd"
#: Unified kernel images, on the ESP; one level below the directory that loaders list by themselves.
UKIS = "EFI/Linux/bootc"
UKI_SUFFIX = ".efi"
ADDON_SUFFIX = ".addon.efi"

_EXTRA = ".extra.d"
_PREFIX = "bootc_composefs-"
_ENTRIES = "loader/entries"
#: GRUB's menu where it boots unified kernel images.
USER_CFG = "grub2/user.cfg"
_STAGED = ".staged"
_ESP_KERNELS = "EFI/Linux"
#: Where the kernels of GRUB are by their entries: of a root file system, or of one of their own.
_BOOT_PATHS = ("/boot", "/")


@dataclass(frozen=True, slots=True)
class Scheme:
    """One combination. All paths are relative to the file system they are in.

    Attributes:
        bootloader: Who reads the menu.
        boot_type: What new deployments are.
        separate_boot: Whether ``/sysroot/boot`` is a file system of its own; GRUB's paths
            start from there then.
    """

    bootloader: Bootloader
    boot_type: BootType
    separate_boot: bool = False

    @property
    def menu_on_esp(self) -> bool:
        """Whether the menu is on the ESP, and not in ``/sysroot/boot``."""
        return self.bootloader is not Bootloader.GRUB

    @property
    def binaries_on_esp(self) -> bool:
        """Whether :attr:`binaries` is on the ESP, and not in ``/sysroot/boot``."""
        return self.menu_on_esp or self.boot_type is BootType.UKI

    @property
    def menu_is_file(self) -> bool:
        """Whether the menu is one file, and not a directory of entries."""
        return self.bootloader is Bootloader.GRUB and self.boot_type is BootType.UKI

    @property
    def entries(self) -> str:
        """The menu: a directory of entry files, or GRUB's file."""
        return USER_CFG if self.menu_is_file else _ENTRIES

    @property
    def staged(self) -> str:
        """The menu that finalising will put in the place of :attr:`entries`."""
        return self.entries + _STAGED

    @property
    def menus(self) -> tuple[str, ...]:
        """Every menu that this loader shows, the first one first."""
        if self.bootloader is Bootloader.GRUB:
            return USER_CFG, _ENTRIES
        return (_ENTRIES,)

    @property
    def kernels(self) -> str:
        """Directory of the kernels' directories, in the file system of the menu."""
        return _ESP_KERNELS if self.menu_on_esp else "."

    @property
    def binaries(self) -> str:
        """Directory of what new deployments start."""
        return UKIS if self.boot_type is BootType.UKI else self.kernels

    def entry_path(self, file_name: str) -> str:
        """Return the path of something in :attr:`binaries` as entries write it."""
        if self.binaries_on_esp:
            return f"/{self.binaries}/{file_name}"
        return f"/{file_name}" if self.separate_boot else f"/boot/{file_name}"

    def kernel_path(self, file_name: str) -> str:
        """Return where something in :attr:`kernels` is, in the file system of the menu."""
        return file_name if self.kernels == "." else f"{self.kernels}/{file_name}"

    def kernel_artifact(self, linux: str) -> str | None:
        """Return the name of the artifact that an entry's ``linux`` belongs to."""
        directory, name = posixpath.split(posixpath.dirname(linux))
        homes = (f"/{_ESP_KERNELS}",) if self.menu_on_esp else _BOOT_PATHS
        return artifact_name(name) if directory in homes else None


@dataclass(frozen=True, slots=True)
class BootDirs:
    """The open file systems of a scheme; their owner closes them.

    Attributes:
        scheme: What belongs where.
        menu: Root of the ESP, or ``/sysroot/boot``: where the menu and the kernels are.
        binaries: The same, or the root of the ESP where that is where unified images are.
    """

    scheme: Scheme
    menu: Dir
    binaries: Dir

    def sync(self) -> None:
        """Return when all that was written is on the disks."""
        self.menu.sync()
        if self.binaries is not self.menu:
            self.binaries.sync()


def staged(menu: str) -> str:
    """Return where the next version of one of :attr:`Scheme.menus` is prepared."""
    return menu + _STAGED


def kernel_dir(artifact: str) -> str:
    """Name of the directory of a kernel and its initramfs."""
    return _PREFIX + artifact


def uki_file(artifact: str) -> str:
    """Name of the file of a unified kernel image."""
    return _PREFIX + artifact + UKI_SUFFIX


def addons_dir(file_name: str) -> str:
    """Directory of what the firmware stub adds to a unified kernel image, beside it."""
    return file_name + _EXTRA


def addons_owner(file_name: str) -> str | None:
    """Return the unified kernel image of ours which a directory of that name belongs to."""
    if not file_name.endswith(UKI_SUFFIX + _EXTRA):
        return None
    image = file_name.removesuffix(_EXTRA)
    return image if artifact_name(image) else None


def artifact_name(file_name: str) -> str | None:
    """Return the artifact that a file or directory is by its name, which may be an old one."""
    name = file_name.removesuffix(UKI_SUFFIX).removeprefix(_PREFIX)
    try:
        return Digest.from_hex(name).hex
    except DigestError:
        return None


def uki_artifact(path: str) -> str | None:
    """Return the artifact that an EFI program with this path is, if it is one of ours.

    Without the prefix of its name it counts only in its proper directory.
    """
    directory, name = posixpath.split(path)
    if not name.endswith(UKI_SUFFIX):
        return None
    if not name.startswith(_PREFIX) and directory != f"/{UKIS}":
        return None
    return artifact_name(name)
