"""The paths and names of boot files, by boot loader and kind of kernel.

This module says where each scheme has its menu and its kernels, and which file names belong to a
deployment. A new boot path adds its row here. Everything except :class:`BootDirs` is pure.

=================  ==========================================  =========================
scheme             menu, below the ESP or ``/sysroot/boot``    kernels
=================  ==========================================  =========================
systemd, grub-cc   ESP: ``loader/entries/``                    ESP: ``EFI/Linux/<name>/``
the same, UKI      ESP: ``loader/entries/``                    ESP: ``EFI/Linux/bootc/``
none, UKI          ESP: ``loader/entries/`` (the record)       ESP: ``EFI/Linux/bootc/``
grub               boot: ``loader/entries/``                   boot: ``<name>/``
grub, UKI          boot: ``grub2/user.cfg``                    ESP: ``EFI/Linux/bootc/``
ukiboot, A/B       the control block of the loader             two partitions
=================  ==========================================  =========================

A GRUB that does not read boot entries reads a menu that is generated from them: the file
``grub.cfg`` beside the entries. It is part of the directory that replaces the live menu.

Without a boot loader the firmware starts the kernels, and ``BootOrder`` is the menu
(:mod:`bootc.boot.firmware_order`). With systemd-boot an extended boot loader partition (XBOOTLDR)
takes the place of the ESP. With ukiboot (:mod:`bootc.boot.slots`) a staged unified kernel image is
on the physical root, in the state directory of its deployment.

A kernel and its initramfs are the files ``vmlinuz`` and ``initrd`` in the directory
``bootc_composefs-<image id>``. A kernel that came in a unified kernel image may have the files
``devicetree`` and ``microcode`` beside them. A unified kernel image is the file
``bootc_composefs-<image id>.efi``. Older installations have these names without the prefix. Both
are called artifacts. The name of an artifact is the image id of the deployment that it came with;
other deployments may share it.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bootc.boot.loader import Bootloader
from bootc.formats import bls
from bootc.formats.digest import Digest, DigestError
from bootc.formats.origin import BootType
from bootc.fs.dir import Dir

if TYPE_CHECKING:
    from bootc.boot.firmware_entries import Firmware
    from bootc.boot.slot_partitions import Slots

VMLINUZ = "vmlinuz"
INITRD = "initrd"
#: What a unified kernel image may have besides: a device tree, and microcode for the processor.
DEVICETREE = "devicetree"
MICROCODE = "microcode"
#: Unified kernel images on the ESP. Boot loaders list only the directory above by themselves.
UKIS = "EFI/Linux/bootc"
UKI_SUFFIX = ".efi"
ADDON_SUFFIX = ".addon.efi"
#: Add-ons of all unified kernel images. The stub looks on the partition of the image.
GLOBAL_ADDONS = "loader/addons"

_EXTRA = ".extra.d"
_PREFIX = "bootc_composefs-"
_ENTRIES = "loader/entries"
#: The menu generated from the entries, in their directory.
GENERATED_MENU = "grub.cfg"
#: Its copy, for the day when another program replaces the entries and generates no menu.
LAST_MENU = "grub2/bootc-last.cfg"
#: GRUB's menu of unified kernel images.
USER_CFG = "grub2/user.cfg"
_STAGED = ".staged"
_ESP_KERNELS = "EFI/Linux"
#: The directories of kernels in GRUB's entries: on the root file system, or on one of their own.
_BOOT_PATHS = ("/boot", "/")


@dataclass(frozen=True, slots=True)
class Scheme:
    """One combination of boot loader and boot type. Paths are relative to their file system.

    Attributes:
        bootloader: The boot loader that reads the menu.
        boot_type: The boot type of new deployments.
        separate_boot: Whether ``/sysroot/boot`` is a file system of its own. GRUB's paths start
            there in this case.
        generated: Whether the configuration of GRUB reads a menu that is generated from the
            entries.
    """

    bootloader: Bootloader
    boot_type: BootType
    separate_boot: bool = False
    generated: bool = False

    @property
    def has_menu(self) -> bool:
        """Whether there is a boot menu. The other properties are for schemes with a menu."""
        return self.in_slots is (self.boot_type is BootType.ABOOT)

    @property
    def in_slots(self) -> bool:
        """Whether the loader starts the content of one of two partitions."""
        return self.bootloader is Bootloader.UKIBOOT

    @property
    def uki_type(self) -> BootType:
        """The boot type of deployments with a unified kernel image."""
        return BootType.ABOOT if self.in_slots else BootType.UKI

    @property
    def only_unified(self) -> bool:
        """Whether only unified kernel images can be started."""
        return self.bootloader in (Bootloader.NONE, Bootloader.UKIBOOT)

    @property
    def menu_on_esp(self) -> bool:
        """Whether the menu is on the ESP; otherwise it is in ``/sysroot/boot``."""
        return self.bootloader is not Bootloader.GRUB

    @property
    def binaries_on_esp(self) -> bool:
        """Whether :attr:`binaries` is on the ESP; otherwise it is in ``/sysroot/boot``."""
        return self.menu_on_esp or self.boot_type is BootType.UKI

    @property
    def menu_is_file(self) -> bool:
        """Whether the menu is one file; otherwise it is a directory of entries."""
        return self.bootloader is Bootloader.GRUB and self.boot_type is BootType.UKI

    @property
    def entries(self) -> str:
        """The path of the menu: a directory of entry files, or GRUB's file."""
        return USER_CFG if self.menu_is_file else _ENTRIES

    @property
    def staged(self) -> str:
        """The path of the staged menu. Finalizing replaces :attr:`entries` with it."""
        return self.entries + _STAGED

    @property
    def menus(self) -> tuple[str, ...]:
        """The paths of all menus that this loader shows, in its order."""
        if self.bootloader is Bootloader.GRUB:
            return USER_CFG, _ENTRIES
        return (_ENTRIES,)

    @property
    def counts_boots(self) -> bool:
        """Whether the loader counts boots in the names of entries."""
        return self.bootloader is Bootloader.SYSTEMD

    @property
    def kernels(self) -> str:
        """The directory that has the directories of kernels, in the file system of the menu."""
        return _ESP_KERNELS if self.menu_on_esp else "."

    @property
    def binaries(self) -> str:
        """The directory with the kernels or unified kernel images of new deployments."""
        return UKIS if self.boot_type is BootType.UKI else self.kernels

    def entry_path(self, file_name: str) -> str:
        """Return the path of a file in :attr:`binaries` as boot entries write it."""
        if self.binaries_on_esp:
            return f"/{self.binaries}/{file_name}"
        return f"/{file_name}" if self.separate_boot else f"/boot/{file_name}"

    def kernel_path(self, file_name: str) -> str:
        """Return the path of a name in :attr:`kernels`, in the file system of the menu."""
        return file_name if self.kernels == "." else f"{self.kernels}/{file_name}"

    def kernel_artifact(self, linux: str) -> str | None:
        """Return the name of the artifact that the ``linux`` of an entry belongs to, or None."""
        directory, name = posixpath.split(posixpath.dirname(linux))
        homes = (f"/{_ESP_KERNELS}",) if self.menu_on_esp else _BOOT_PATHS
        return artifact_name(name) if directory in homes else None


@dataclass(frozen=True, slots=True)
class Mirror:
    """A further ESP of the machine, which has the same content as the main one.

    Attributes:
        device: The path of the partition.
        dirs: Its file systems; None if they cannot be opened. On a machine whose menu is not on the
            ESP, ``menu`` is that of the main ESP.
        problem: The reason why they cannot be opened.
    """

    device: str
    dirs: BootDirs | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class BootDirs:
    """The open file systems of a scheme; their owner closes them.

    Attributes:
        scheme: The scheme.
        menu: The root of the ESP, or ``/sysroot/boot``. It has the menu and the kernels.
        binaries: The directory for new deployments: ``menu``, or the root of the ESP if unified
            kernel images are there and the menu is not.
        programs: The root of the ESP with the programs of the boot loader; None if that is
            ``binaries``, or not needed.
        firmware: The boot entries of the firmware, if these are the menu.
        slots: The partitions of ukiboot, if these have the kernels. ``menu`` and ``binaries`` are
            the physical root.
        mirrors: The further ESPs of a machine whose root file system is on several disks.
    """

    scheme: Scheme
    menu: Dir
    binaries: Dir
    programs: Dir | None = None
    firmware: Firmware | None = None
    slots: Slots | None = None
    mirrors: tuple[Mirror, ...] = ()

    @property
    def esp(self) -> Dir:
        """The root of the ESP, on machines that have one."""
        return self.programs or self.binaries

    @property
    def place(self) -> str:
        """The file system of new kernels, for messages."""
        return "the boot partition" if self.slots is None else "the root file system"

    def sync(self) -> None:
        """Write all changes to the disks, and return then."""
        self.menu.sync()
        if self.binaries is not self.menu:
            self.binaries.sync()


def staged(menu: str) -> str:
    """Return the path of the staged menu for one of :attr:`Scheme.menus`."""
    return menu + _STAGED


def with_kept_counter(name: str, counted: str, *, is_default: bool) -> str:
    """Return the name of an entry with the boot counter in another name of the same entry.

    Args:
        name: The name.
        counted: The name with the counter.
        is_default: The entry shall boot by default. systemd-boot shows an entry without tries
            left after all others, so this entry loses such a counter.
    """
    counter = bls.boot_counter(counted)
    if is_default and counter is not None and counter.is_bad:
        return bls.without_counter(name)
    return bls.with_counter_of(name, counted)


def kernel_dir(artifact: str) -> str:
    """Return the name of the directory of a kernel and its initramfs."""
    return _PREFIX + artifact


def uki_file(artifact: str) -> str:
    """Return the file name of a unified kernel image."""
    return _PREFIX + artifact + UKI_SUFFIX


def addons_dir(file_name: str) -> str:
    """Return the name of the directory of add-ons, beside their unified kernel image."""
    return file_name + _EXTRA


def addons_dirs(path: str) -> tuple[str, ...]:
    """Return the paths where a unified kernel image may have add-ons: with and without counter.

    Newer versions of systemd-stub look without the counter in the name of the image.
    """
    return tuple(dict.fromkeys(addons_dir(name) for name in (path, bls.without_counter(path))))


def global_addon_file(name: str) -> str:
    """Return the file name of a global add-on of ours. The prefix tells it from foreign ones."""
    return _PREFIX + name


def global_addon(file_name: str) -> str | None:
    """Return the name in the image of a global add-on with this file name, or None."""
    if not (file_name.startswith(_PREFIX) and file_name.endswith(ADDON_SUFFIX)):
        return None
    return file_name.removeprefix(_PREFIX)


def addons_owner(file_name: str) -> str | None:
    """Return the artifact that a directory of add-ons belongs to by its name, or None."""
    if not file_name.endswith(UKI_SUFFIX + _EXTRA):
        return None
    return artifact_name(file_name.removesuffix(_EXTRA))


def artifact_name(file_name: str) -> str | None:
    """Return the artifact that a file or a directory is by its name, or None.

    Names of older installations count as well. A boot counter in the name of a unified kernel
    image does not make it another image.
    """
    name = bls.without_counter(file_name).removesuffix(UKI_SUFFIX).removeprefix(_PREFIX)
    try:
        return Digest.from_hex(name).hex
    except DigestError:
        return None


def started_artifact(path: str) -> str | None:
    """Return the artifact that the firmware starts by this path, or None if it is not ours.

    Firmwares may change the case of letters, which FAT ignores.
    """
    directory, name = posixpath.split(path)
    if directory.lower() != f"/{UKIS}".lower():
        return None
    return uki_artifact(f"/{UKIS}/{name.lower()}")


def uki_artifact(path: str) -> str | None:
    """Return the artifact that an EFI program with this path is, or None if it is not ours.

    An old name without the prefix counts only in the directory of our unified kernel images.
    """
    directory, name = posixpath.split(path)
    if not name.endswith(UKI_SUFFIX):
        return None
    if not name.startswith(_PREFIX) and directory != f"/{UKIS}":
        return None
    return artifact_name(name)
