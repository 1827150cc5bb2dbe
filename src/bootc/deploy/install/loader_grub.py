"""Installs GRUB from the image: by bootupd if the image has it, else with files that bootc writes.

Menu and kernels are in ``/boot``. The image's GRUB may not read boot entries. In this case it reads
a menu that is generated from them (:mod:`bootc.formats.grubmenu`).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping

from bootc.boot import grub
from bootc.boot.image_content import file_size
from bootc.boot.loader import Bootloader
from bootc.boot.scheme import BootDirs, Scheme
from bootc.deploy.install import firmware_start, grub_bios, grub_bootupd, grub_efi, loader_menu
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
    #: They run programs of the image.
    tools: tuple[str, ...] = ("chroot", "unshare")
    kernel_place: str = "/boot"
    #: Of unified kernel images.
    kernels_on_esp = True

    def image_choices(self, machine: str) -> tuple[tuple[ImageNeed, ...], ...]:
        """Return the files of bootupd, and those from which bootc installs GRUB itself."""
        return grub_bootupd.NEEDS, self.image_needs(machine)

    def is_by_bootupd(self, has: Callable[[str], bool]) -> bool:
        """Tell whether the image has bootupd."""
        return grub_bootupd.is_there(has)

    def program_sizes(self, tree: Directory, *, generic: bool) -> Mapping[str, int]:
        """Return the programs for the ESP."""
        if self.is_by_bootupd(lambda path: tree.lookup(path) is not None):
            return grub_bootupd.sizes(tree) if self.needs_esp else {}
        return self._own_sizes(tree, generic=generic)

    def write_programs(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Install GRUB and its static configuration: by bootupd, or as the subclass does."""
        if not self.is_by_bootupd(deployment.mounted.exists):
            self._write_own(deployment, target, boot, sink)
            return
        grub_bootupd.install(deployment, target, sink)
        _write_esp_uuid(target)
        boot.sync()
        if target.esp is not None:
            target.esp.sync()

    def commit(self, deployment: NewDeployment, target: BootTarget, boot: BootDirs) -> None:
        """Write the menu, without which GRUB boots nothing."""
        generated = grub.reads_generated_menu(boot.menu)
        scheme = dataclasses.replace(boot.scheme, generated=generated)
        loader_menu.write_menu(deployment, dataclasses.replace(boot, scheme=scheme))

    def _own_sizes(self, tree: Directory, *, generic: bool) -> Mapping[str, int]:
        """Return the programs that :meth:`_write_own` writes to the ESP."""
        return {}

    def _write_own(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Write the programs of the image, and the static configuration of bootc."""

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
        programs = None if on_esp else target.esp
        return BootDirs(scheme, menu=target.boot, binaries=binaries, programs=programs)

    def write_kernel(self, deployment: NewDeployment, boot: BootDirs) -> str:
        """Write the kernel to ``/boot``, or to the ESP."""
        return loader_menu.write_kernel(deployment, boot)


class GrubBiosInstaller(_Grub):
    """GRUB, started by a BIOS from sector 0 and the BIOS boot partition. The disk has no ESP."""

    title = "GRUB for BIOS"
    firmwares: tuple[FirmwareType, ...] = (FirmwareType.BIOS,)
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

    def _write_own(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Write the static configuration, and the program to the BIOS boot partition."""
        _write_configuration(deployment, target, boot)
        grub_bios.write_core(deployment.mounted, target)

    def commit(self, deployment: NewDeployment, target: BootTarget, boot: BootDirs) -> None:
        """Write the menu, and then sector 0, which makes the disk bootable.

        bootupd has written sector 0 already. In this case the menu makes the disk bootable.
        """
        super().commit(deployment, target, boot)
        if self.is_by_bootupd(deployment.mounted.exists):
            return
        boot.sync()
        grub_bios.write_boot_sector(grub_bios.read_boot_image(deployment.mounted), target)

    def boots(self, target: BootTarget) -> bool:
        """Tell whether there are boot code in sector 0 and a menu entry."""
        return grub_bios.has_boot_code(target.disk) and super().boots(target)


class GrubUefiInstaller(_Grub):
    """GRUB, started by UEFI firmware from the ESP, through shim if the image has it."""

    title = "GRUB for UEFI"
    firmwares: tuple[FirmwareType, ...] = (FirmwareType.UEFI,)
    machines: tuple[str, ...] = grub_efi.MACHINES
    needs_esp = True
    kernel_place = "/boot, or to the EFI system partition if it is a unified kernel image"

    def image_needs(self, machine: str) -> tuple[ImageNeed, ...]:
        """Return GRUB's EFI program. shim is not needed without Secure Boot."""
        return grub_efi.needs(machine)

    def _own_sizes(self, tree: Directory, *, generic: bool) -> Mapping[str, int]:
        """Return the programs."""
        return grub_efi.sizes(tree, os.uname().machine, generic=generic)

    def record(self, target: BootTarget) -> BootRecord:
        """Return the record with the PARTUUID of the ESP."""
        esp = target.esp_partition
        return BootRecord(self.name, FirmwareType.UEFI, esp.uuid or None if esp else None)

    def _write_own(
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


class GrubAnyInstaller(GrubUefiInstaller):
    """GRUB for a disk that any machine boots: started by UEFI and by a BIOS, with one menu.

    The image may have GRUB for one of the two only. Nothing boots before the menu is written, so
    the menu is the commit point for both.
    """

    title = "GRUB for UEFI and BIOS"
    firmwares = (FirmwareType.UEFI, FirmwareType.BIOS)

    def image_needs(self, machine: str) -> tuple[ImageNeed, ...]:
        """Return GRUB for one of the two."""
        program = grub_efi.needs(machine)[0]
        if machine not in GrubBiosInstaller.machines:
            return (program,)
        # The package of the boot code depends on that of the program that makes the core image.
        return (ImageNeed((*program.paths, *grub_bios.NEEDS[0].paths), program.package),)

    def _own_sizes(self, tree: Directory, *, generic: bool) -> Mapping[str, int]:
        """Return the programs for UEFI, if the image has them."""
        machine = os.uname().machine
        if not grub_efi.is_there(lambda path: file_size(tree, path) is not None, machine):
            return {}
        return grub_efi.sizes(tree, machine, generic=generic)

    def _write_own(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Write the static configuration, and the programs that the image has."""
        machine = os.uname().machine
        no_bios = _why_no_bios(deployment, target, boot)
        if grub_efi.is_there(deployment.mounted.exists, machine):
            super()._write_own(deployment, target, boot, sink)
            if no_bios is not None and machine in GrubBiosInstaller.machines:
                sink(Message(f"notice: A BIOS does not start the disk: {no_bios}"))
        elif no_bios is None:
            package = grub_efi.needs(machine)[0].package
            sink(Message(f"notice: UEFI does not start the disk: the image has no {package}"))
            _write_configuration(deployment, target, boot)
        else:
            raise InstallRefused(
                f"the image has no GRUB for UEFI, and a BIOS does not start the disk: {no_bios}",
                hint=f"build the image with {grub_efi.needs(machine)[0].package}, or choose "
                "another boot loader with --bootloader",
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
    _write_esp_uuid(target)


def _write_esp_uuid(target: BootTarget) -> None:
    """Tell GRUB where unified kernel images are; a later update may bring the first one."""
    if not target.esp_uuid:
        return
    parent = grub.STATIC_CONFIG.rpartition("/")[0]
    with (
        doing(f"Writing {target.boot.path}/{parent}/{grub.ESP_UUID}"),
        target.boot.ensure_dir(parent) as directory,
    ):
        mirrors = (mirror.esp_uuid for mirror in target.mirrors if mirror.esp_uuid)
        esp_uuid = grub.esp_uuid_config(target.esp_uuid, *mirrors)
        atomic.write_file(directory, grub.ESP_UUID, esp_uuid, durable=True)
