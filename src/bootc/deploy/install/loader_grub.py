"""Installs GRUB from the image, with a configuration that bootc writes.

Menu and kernels are in ``/boot``. The image's GRUB may not read boot entries, so it reads a menu
that is generated from them (:mod:`bootc.formats.grubmenu`).
"""

from __future__ import annotations

from bootc.boot import grub
from bootc.boot.loader import Bootloader
from bootc.boot.scheme import BootDirs, Scheme
from bootc.deploy.install import grub_bios, loader_menu
from bootc.deploy.install.loader_installer import (
    BootTarget,
    FirmwareType,
    ImageNeed,
    LoaderInstaller,
    NewDeployment,
)
from bootc.deploy.install.request import InstallRefused
from bootc.errors import doing
from bootc.events import Sink
from bootc.formats import cmdline, grubmenu
from bootc.formats.grubcfg import GrubCfgError
from bootc.formats.origin import BootRecord, BootType
from bootc.fs import atomic


class _Grub(LoaderInstaller):
    """What GRUB has in common on all machines."""

    name = Bootloader.GRUB.value
    #: GRUB 2.12 does not tell the system where it was started from.
    tells_partition = False
    kernel_place = "/boot"
    kernels_on_esp = False

    def check_kernel_arguments(self, arguments: tuple[str, ...]) -> None:
        """Refuse what GRUB would change on the way to the kernel."""
        try:
            grubmenu.kernel_parameters(cmdline.join(arguments))
        except GrubCfgError as exc:
            raise InstallRefused(exc.message, hint=exc.hint) from None

    def check_boot_type(self, boot_type: BootType) -> None:
        """Refuse unified kernel images."""
        if boot_type is not BootType.BLS:
            raise InstallRefused(
                "the image boots by a unified kernel image, which this version does not install "
                "with GRUB",
                hint="use --bootloader systemd, or an image with a kernel and an initramfs in "
                "/usr/lib/modules",
            )

    def boot_dirs(self, target: BootTarget, boot_type: BootType) -> BootDirs:
        """Return ``/boot``."""
        scheme = Scheme(Bootloader.GRUB, boot_type, target.separate_boot, generated=True)
        return BootDirs(scheme, menu=target.boot, binaries=target.boot)

    def write_kernel(self, deployment: NewDeployment, boot: BootDirs) -> str:
        """Write the kernel to ``/boot``."""
        return loader_menu.write_kernel(deployment, boot)


class GrubBiosInstaller(_Grub):
    """GRUB, started by a BIOS from sector 0 and the BIOS boot partition. The disk has no ESP."""

    title = "GRUB for BIOS"
    firmware = FirmwareType.BIOS
    tools = ("chroot",)
    machines = ("x86_64",)
    needs_esp = False

    def image_needs(self, machine: str) -> tuple[ImageNeed, ...]:
        """Return GRUB's boot code and the program that makes its core image."""
        return grub_bios.NEEDS

    def record(self, target: BootTarget) -> BootRecord:
        """Return the record: there is no ESP."""
        return BootRecord(self.name, self.firmware)

    def write_programs(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Write the static configuration, and the program to the BIOS boot partition."""
        _write_configuration(deployment, boot)
        grub_bios.write_core(deployment.mounted, target)

    def commit(self, deployment: NewDeployment, target: BootTarget, boot: BootDirs) -> None:
        """Write the menu, and then sector 0, which makes the disk bootable."""
        loader_menu.write_menu(deployment, boot)
        boot.sync()
        grub_bios.write_boot_sector(grub_bios.read_boot_image(deployment.mounted), target)

    def boots(self, target: BootTarget) -> bool:
        """Tell whether there are boot code in sector 0 and a menu entry."""
        return grub_bios.has_boot_code(target.disk) and super().boots(target)


def _write_configuration(deployment: NewDeployment, boot: BootDirs) -> None:
    path = f"{boot.menu.path}/{grub.STATIC_CONFIG}"
    parent, _, name = grub.STATIC_CONFIG.rpartition("/")
    arguments = cmdline.parse(deployment.booting.options or "")
    with doing(f"Writing {path}"), boot.menu.ensure_dir(parent) as directory:
        config, mode = grub.static_config(arguments), grub.STATIC_CONFIG_MODE
        atomic.write_file(directory, name, config, mode=mode, durable=True)
        atomic.write_file(directory, grub.ENVIRONMENT, grub.EMPTY_ENVIRONMENT, durable=True)
