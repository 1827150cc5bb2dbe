"""Installs GRUB from the image, with a configuration that bootc writes.

Menu and kernels are in ``/boot``. The image's GRUB may not read boot entries, so it reads a menu
that is generated from them (:mod:`bootc.formats.grubmenu`).
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from bootc.boot import grub
from bootc.boot.image_content import file_size
from bootc.boot.loader import Bootloader
from bootc.boot.scheme import BootDirs, Scheme
from bootc.deploy.install import firmware_start, grub_bios, grub_efi, loader_menu
from bootc.deploy.install.loader_installer import (
    BootTarget,
    FirmwareType,
    ImageNeed,
    LoaderInstaller,
    NewDeployment,
)
from bootc.deploy.install.request import InstallRefused
from bootc.errors import doing
from bootc.events import Message, Sink
from bootc.formats import cmdline, grubmenu
from bootc.formats.grubcfg import GrubCfgError
from bootc.formats.origin import BootRecord, BootType
from bootc.formats.tree import Directory
from bootc.fs import atomic


class _Grub(LoaderInstaller):
    """The properties that GRUB has on all machines."""

    name = Bootloader.GRUB.value
    #: GRUB 2.12 does not tell the system where it was started from. 2.14 does, but not on a BIOS.
    tells_partition = False
    kernel_place: str = "/boot"
    #: Of unified kernel images.
    kernels_on_esp = True

    def check_kernel_arguments(self, arguments: tuple[str, ...]) -> None:
        """Refuse what GRUB would change on the way to the kernel."""
        try:
            grubmenu.kernel_parameters(cmdline.join(arguments))
        except GrubCfgError as exc:
            raise InstallRefused(exc.message, hint=exc.hint) from None

    def boot_dirs(self, target: BootTarget, boot_type: BootType) -> BootDirs:
        """Return ``/boot`` for the menu and for kernels, and the ESP for unified kernel images."""
        scheme = Scheme(Bootloader.GRUB, boot_type, target.separate_boot, generated=True)
        # A disk without an ESP has no unified kernel images, which check_boot_type refused.
        on_esp = scheme.binaries_on_esp and target.esp is not None
        binaries = target.esp if on_esp and target.esp is not None else target.boot
        return BootDirs(scheme, menu=target.boot, binaries=binaries)

    def write_kernel(self, deployment: NewDeployment, boot: BootDirs) -> str:
        """Write the kernel to ``/boot``, or to the ESP."""
        return loader_menu.write_kernel(deployment, boot)


class GrubBiosInstaller(_Grub):
    """GRUB, started by a BIOS from sector 0 and the BIOS boot partition. The disk has no ESP."""

    title = "GRUB for BIOS"
    firmwares: tuple[FirmwareType, ...] = (FirmwareType.BIOS,)
    tools: tuple[str, ...] = ("chroot",)
    machines: tuple[str, ...] = ("x86_64",)
    needs_esp = False
    needs_bios_boot = True

    def image_needs(self, machine: str) -> tuple[ImageNeed, ...]:
        """Return GRUB's boot code and the program that makes its core image."""
        return grub_bios.NEEDS

    def check_boot_type(self, boot_type: BootType) -> None:
        """Refuse unified kernel images."""
        if boot_type is not BootType.BLS:
            raise InstallRefused(
                "the image boots by a unified kernel image, which a BIOS cannot start",
                hint="--boot-type bls boots its kernel without the UKI and its signature; or use "
                "an image with a kernel and an initramfs in /usr/lib/modules",
            )

    def record(self, target: BootTarget) -> BootRecord:
        """Return the record: there is no ESP."""
        return BootRecord(self.name, FirmwareType.BIOS)

    def write_programs(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Write the static configuration, and the program to the BIOS boot partition."""
        _write_configuration(deployment, target, boot)
        grub_bios.write_core(deployment.mounted, target)

    def commit(self, deployment: NewDeployment, target: BootTarget, boot: BootDirs) -> None:
        """Write the menu, and then sector 0, which makes the disk bootable."""
        loader_menu.write_menu(deployment, boot)
        boot.sync()
        grub_bios.write_boot_sector(grub_bios.read_boot_image(deployment.mounted), target)

    def boots(self, target: BootTarget) -> bool:
        """Tell whether there are boot code in sector 0 and a menu entry."""
        return grub_bios.has_boot_code(target.disk) and super().boots(target)


class GrubUefiInstaller(_Grub):
    """GRUB, started by UEFI firmware from the ESP, through shim if the image has it."""

    title = "GRUB for UEFI"
    firmwares: tuple[FirmwareType, ...] = (FirmwareType.UEFI,)
    tools: tuple[str, ...] = ()
    machines: tuple[str, ...] = grub_efi.MACHINES
    needs_esp = True
    kernel_place = "/boot, or to the EFI system partition if it is a unified kernel image"

    def image_needs(self, machine: str) -> tuple[ImageNeed, ...]:
        """Return GRUB's EFI program. shim is not needed without Secure Boot."""
        return grub_efi.needs(machine)

    def program_sizes(self, tree: Directory, *, generic: bool) -> Mapping[str, int]:
        """Return the programs."""
        return grub_efi.sizes(tree, os.uname().machine, generic=generic)

    def record(self, target: BootTarget) -> BootRecord:
        """Return the record with the PARTUUID of the ESP."""
        esp = target.esp_partition
        return BootRecord(self.name, FirmwareType.UEFI, esp.uuid or None if esp else None)

    def write_programs(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Write the static configuration, the programs, and the boot entry of the firmware."""
        assert target.esp is not None, "the target of a loader that needs an ESP has one"
        _write_configuration(deployment, target, boot)
        program = grub_efi.write_programs(
            deployment.mounted,
            target.esp,
            os.uname().machine,
            target.boot_uuid,
            generic=deployment.generic,
        )
        target.esp.sync()
        if target.esp_partition is not None and not deployment.generic:
            # Debian's own installer names the entry after the directory.
            title = program.split("/")[1]
            firmware_start.ensure_started(target.esp_partition, program, title)

    def commit(self, deployment: NewDeployment, target: BootTarget, boot: BootDirs) -> None:
        """Write the menu, without which GRUB boots nothing."""
        loader_menu.write_menu(deployment, boot)


class GrubAnyInstaller(GrubUefiInstaller):
    """GRUB for a disk that any machine boots: started by UEFI and by a BIOS, with one menu.

    The image may have GRUB for one of the two only. Nothing boots before the menu is written, so
    the menu is the commit point for both.
    """

    title = "GRUB for UEFI and BIOS"
    firmwares = (FirmwareType.UEFI, FirmwareType.BIOS)
    tools = ("chroot",)

    def image_needs(self, machine: str) -> tuple[ImageNeed, ...]:
        """Return GRUB for one of the two."""
        program = grub_efi.needs(machine)[0]
        if machine not in GrubBiosInstaller.machines:
            return (program,)
        # The package of the boot code depends on that of the program that makes the core image.
        return (ImageNeed((*program.paths, *grub_bios.NEEDS[0].paths), program.package),)

    def program_sizes(self, tree: Directory, *, generic: bool) -> Mapping[str, int]:
        """Return the programs for UEFI, if the image has them."""
        machine = os.uname().machine
        if not grub_efi.is_there(lambda path: file_size(tree, path) is not None, machine):
            return {}
        return grub_efi.sizes(tree, machine, generic=generic)

    def write_programs(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Write the static configuration, and the programs that the image has."""
        machine = os.uname().machine
        no_bios = _why_no_bios(deployment, target, boot)
        if grub_efi.is_there(deployment.mounted.exists, machine):
            super().write_programs(deployment, target, boot, sink)
            if no_bios is not None and machine in GrubBiosInstaller.machines:
                sink(Message(f"notice: A BIOS does not start the disk: {no_bios}"))
        elif no_bios is None:
            package = grub_efi.needs(machine)[0].package
            sink(Message(f"notice: UEFI does not start the disk: the image has no {package}"))
            _write_configuration(deployment, target, boot)
        else:
            raise InstallRefused(
                f"the image has no GRUB for UEFI, and a BIOS does not start the disk: {no_bios}"
            )
        if no_bios is None:
            grub_bios.write_core(deployment.mounted, target)
            grub_bios.write_boot_sector(grub_bios.read_boot_image(deployment.mounted), target)


def _why_no_bios(deployment: NewDeployment, target: BootTarget, boot: BootDirs) -> str | None:
    """Return why a BIOS does not start a disk, or None if it does."""
    if boot.scheme.boot_type is BootType.UKI:
        return "it cannot start unified kernel images"
    if not grub_bios.is_there(deployment.mounted.exists):
        return "the image has no grub-pc-bin or no grub-common"
    if target.bios_boot is None:
        return "there is no BIOS boot partition"
    return None


def _write_configuration(deployment: NewDeployment, target: BootTarget, boot: BootDirs) -> None:
    path = f"{boot.menu.path}/{grub.STATIC_CONFIG}"
    parent, _, name = grub.STATIC_CONFIG.rpartition("/")
    arguments = cmdline.parse(deployment.booting.options or "")
    with doing(f"Writing {path}"), boot.menu.ensure_dir(parent) as directory:
        config, mode = grub.static_config(arguments), grub.STATIC_CONFIG_MODE
        atomic.write_file(directory, name, config, mode=mode, durable=True)
        atomic.write_file(directory, grub.ENVIRONMENT, grub.EMPTY_ENVIRONMENT, durable=True)
        if target.esp_uuid:
            # Also for a machine that gets unified kernel images with a later update.
            esp_uuid = grub.esp_uuid_config(target.esp_uuid)
            atomic.write_file(directory, grub.ESP_UUID, esp_uuid, durable=True)
