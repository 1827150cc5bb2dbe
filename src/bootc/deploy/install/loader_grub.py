"""Installs GRUB from the image, with a configuration that bootc writes.

Menu and kernels are in ``/boot``. The image's GRUB may not read boot entries, so it reads a menu
that is generated from them (:mod:`bootc.formats.grubmenu`).
"""

from __future__ import annotations

from bootc.boot import grub
from bootc.boot.loader import Bootloader
from bootc.boot.scheme import BootDirs, Scheme
from bootc.deploy.install import grub_bios, loader_menu
from bootc.deploy.install.loader_installer import BootTarget, ImageNeed, NewDeployment
from bootc.deploy.install.request import InstallRefused
from bootc.errors import doing
from bootc.events import Sink
from bootc.formats import cmdline, grubmenu
from bootc.formats.grubcfg import GrubCfgError
from bootc.formats.origin import BootRecord, BootType
from bootc.fs import atomic


class GrubBiosInstaller:
    """GRUB, started by a BIOS from sector 0 and the BIOS boot partition. The disk has no ESP.

    The methods are those of :class:`~bootc.deploy.install.loader_installer.LoaderInstaller`.
    """

    name = Bootloader.GRUB.value
    title = "GRUB for BIOS"
    tools = ("chroot",)
    machines = ("x86_64",)
    needs_esp = False
    tells_partition = False
    kernel_place = "/boot"

    def image_needs(self, machine: str) -> tuple[ImageNeed, ...]:
        """Return GRUB's boot code and the program that makes its core image."""
        return grub_bios.NEEDS

    def check_kernel_arguments(self, arguments: tuple[str, ...]) -> None:
        """Refuse what GRUB would change on the way to the kernel."""
        try:
            grubmenu.kernel_parameters(cmdline.join(arguments))
        except GrubCfgError as exc:
            raise InstallRefused(exc.message, hint=exc.hint) from None

    def check_boot_type(self, boot_type: BootType) -> None:
        """Refuse unified kernel images, which are EFI programs."""
        if boot_type is not BootType.BLS:
            raise InstallRefused(
                "the image boots by a unified kernel image, which a BIOS cannot start",
                hint="install on a machine with UEFI, or use an image with a kernel and an "
                "initramfs in /usr/lib/modules",
            )

    def boot_dirs(self, target: BootTarget, boot_type: BootType) -> BootDirs:
        """Return ``/boot``."""
        scheme = Scheme(Bootloader.GRUB, boot_type, target.separate_boot, generated=True)
        return BootDirs(scheme, menu=target.boot, binaries=target.boot)

    def record(self, target: BootTarget) -> BootRecord:
        """Return the record: there is no ESP."""
        return BootRecord(self.name, "bios")

    def write_programs(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Write the static configuration, and the program to the BIOS boot partition."""
        path = f"{boot.menu.path}/{grub.STATIC_CONFIG}"
        parent, _, name = grub.STATIC_CONFIG.rpartition("/")
        arguments = cmdline.parse(deployment.booting.options or "")
        with doing(f"Writing {path}"), boot.menu.ensure_dir(parent) as directory:
            config, mode = grub.static_config(arguments), grub.STATIC_CONFIG_MODE
            atomic.write_file(directory, name, config, mode=mode, durable=True)
            atomic.write_file(directory, grub.ENVIRONMENT, grub.EMPTY_ENVIRONMENT, durable=True)
        grub_bios.write_core(deployment.mounted, target)

    def write_kernel(self, deployment: NewDeployment, boot: BootDirs) -> str:
        """Write the kernel to ``/boot``."""
        return loader_menu.write_kernel(deployment, boot)

    def commit(self, deployment: NewDeployment, target: BootTarget, boot: BootDirs) -> None:
        """Write the menu, and then sector 0, which makes the disk bootable."""
        loader_menu.write_menu(deployment, boot)
        boot.sync()
        grub_bios.write_boot_sector(grub_bios.read_boot_image(deployment.mounted), target)
