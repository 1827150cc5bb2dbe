"""Installs an image without a boot loader: the firmware starts its unified kernel image."""

from __future__ import annotations

import dataclasses
import logging
import re
import uuid
from collections.abc import Mapping

from bootc.boot.firmware_entries import Firmware, PartitionPlace
from bootc.boot.kernels import BootResource
from bootc.boot.loader import Bootloader
from bootc.boot.scheme import BootDirs, Scheme
from bootc.deploy.install import loader_menu
from bootc.deploy.install.loader_installer import (
    BootTarget,
    FirmwareType,
    LoaderInstaller,
    NewDeployment,
)
from bootc.deploy.install.partition import Partition
from bootc.deploy.install.request import InstallRefused
from bootc.errors import Error, one_line
from bootc.events import Sink
from bootc.formats.origin import BootRecord, BootType

_log = logging.getLogger(__name__)


class NoLoaderInstaller(LoaderInstaller):
    """No boot loader. The menu is the boot order of the firmware, and the kernels are on the ESP.

    A unified kernel image is the only program that it needs, and has its own kernel arguments.
    """

    name = Bootloader.NONE.value
    title = "the firmware"
    firmwares = (FirmwareType.UEFI,)
    machines = ("x86_64", "aarch64")
    needs_esp = True
    kernels_on_esp = True
    #: systemd-stub does.
    tells_partition = True
    kernel_place = "the EFI system partition"

    def check_boot_type(self, boot_type: BootType) -> None:
        """Accept unified kernel images only."""
        if boot_type is not BootType.UKI:
            raise InstallRefused(
                "without a boot loader the firmware starts only unified kernel images, "
                "and the image has none",
                hint="use --bootloader systemd, or build the image with a unified kernel image",
            )

    def boot_dirs(self, target: BootTarget, boot_type: BootType) -> BootDirs:
        """Return the ESP."""
        assert target.esp is not None, "the target of a loader that needs an ESP has one"
        return BootDirs(
            Scheme(Bootloader.NONE, boot_type),
            menu=target.esp,
            binaries=target.esp,
            firmware=Firmware(_place(_partition(target))),
        )

    def record(self, target: BootTarget) -> BootRecord:
        """Return the record with the PARTUUID of the ESP."""
        return BootRecord(self.name, FirmwareType.UEFI, _partition(target).uuid or None)

    def write_programs(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Write nothing: the firmware starts the kernel itself."""

    def kernel_sizes(self, resource: BootResource) -> Mapping[str, int]:
        """Return the sizes of the unified kernel image, and of its copy in ``EFI/BOOT``."""
        sizes = dict(resource.sizes)
        return sizes | {f"the copy of {name} in EFI/BOOT": size for name, size in sizes.items()}

    def write_kernel(self, deployment: NewDeployment, boot: BootDirs) -> str:
        """Write the unified kernel image, if there is also space for its copy in ``EFI/BOOT``."""
        sizes = self.kernel_sizes(deployment.booting.resource)
        return loader_menu.write_kernel(deployment, boot, sizes)

    def commit(self, deployment: NewDeployment, target: BootTarget, boot: BootDirs) -> None:
        """Write the boot entry of the firmware, or only ``EFI/BOOT`` if that is not possible.

        The first boot then writes the entry.
        """
        assert boot.firmware is not None, "boot_dirs returned a firmware"
        elsewhere = dataclasses.replace(boot.firmware, may_write=False)
        if deployment.generic:
            loader_menu.write_menu(deployment, dataclasses.replace(boot, firmware=elsewhere))
            return
        try:
            loader_menu.write_menu(deployment, boot)
        except OSError as exc:
            _log.warning(
                "the firmware got no boot entry for the new disk, and starts its EFI/BOOT: %s",
                one_line(exc),
            )
            loader_menu.write_menu(deployment, dataclasses.replace(boot, firmware=elsewhere))

    def boots(self, target: BootTarget) -> bool:
        """Tell whether the firmware starts a deployment, by its boot order or by ``EFI/BOOT``."""
        try:
            return super().boots(target)
        except UnknownPlace:
            # Nothing was installed there without a boot loader.
            return False


class UnknownPlace(Error):
    """A partition has no place that the firmware could be told."""


def _partition(target: BootTarget) -> Partition:
    assert target.esp_partition is not None, "a disk with an ESP has its row of the table"
    return target.esp_partition


def _place(partition: Partition) -> PartitionPlace:
    number = re.search(r"[0-9]+\Z", partition.node)
    if number is None or not partition.uuid:
        raise UnknownPlace(f"the number or the PARTUUID of {partition.node} is not known")
    return PartitionPlace(
        int(number[0]), partition.first_sector, partition.sectors, uuid.UUID(partition.uuid)
    )
