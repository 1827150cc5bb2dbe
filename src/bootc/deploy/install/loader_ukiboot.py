"""Installs ukiboot from the image: an A/B loader that starts one of two partitions.

The ESP has the loader, and for each slot an add-on that names the slot on the kernel command line.
systemd-stub finds the add-on beside the path under which the loader starts a slot. That path is
compiled into the loader.

Source: ukiboot 0.2.1; ``docs/adr/0017-one-menu-protocol.md``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from bootc.boot.esp_size import LARGE_DISK_MIB
from bootc.boot.image_kernel import UkiFile
from bootc.boot.kernels import BootResource, write_to_slot
from bootc.boot.loader import Bootloader
from bootc.boot.menu_ukiboot import check_fits
from bootc.boot.scheme import BootDirs, Scheme
from bootc.boot.slot_partitions import Slots
from bootc.deploy.install import firmware_start, installed_menu
from bootc.deploy.install.loader_installer import (
    BootTarget,
    FirmwareType,
    ImageNeed,
    LoaderInstaller,
    NewDeployment,
)
from bootc.deploy.install.partition import RawPartition
from bootc.deploy.install.request import InstallRefused
from bootc.errors import Error, doing
from bootc.events import Sink
from bootc.formats.origin import BootRecord, BootType
from bootc.formats.ukiboot import (
    CONTROL_NAME,
    CONTROL_TYPE,
    MAX_PRIORITY,
    MAX_TRIES,
    SLOT_TYPE,
    ControlBlock,
    Name,
    Slot,
)
from bootc.fs import atomic
from bootc.fs.dir import Dir

#: Room for the unified kernel image of a small device, and for one with all firmware files.
_SLOT_SIZE_MIB = 192
_LARGE_SLOT_SIZE_MIB = 512
_CONTROL_SIZE_MIB = 1
_PROGRAMS = "usr/libexec/ukiboot/efi"
_MAX_PROGRAM_BYTES = 16 << 20
#: The loader, and the path from which the firmware starts it, by architecture.
_LOADERS = {
    "x86_64": ("ukibootx64.efi", "BOOTX64.EFI"),
    "aarch64": ("ukibootaa64.efi", "BOOTAA64.EFI"),
}
_BOOT_DIR = "EFI/BOOT"
#: A text of UTF-16 in the loader: the directory under which it pretends to start a slot.
_SLOT_DIR = re.compile(rb"\0\0((?:E\0F\0I\0[/\\]\0)(?:[A-Za-z0-9._-]\0)+)\0\0")
#: The loader starts neither slot, and the firmware goes on with its next boot entry.
_NOTHING = ControlBlock(Slot(), Slot())


class NotUkiboot(Error):
    """The loader of the image is no version of ukiboot that bootc knows."""


class UkibootInstaller(LoaderInstaller):
    """ukiboot, started by UEFI firmware. The kernel is in one of two partitions."""

    name = Bootloader.UKIBOOT.value
    title = "ukiboot"
    firmwares = (FirmwareType.UEFI,)
    machines = tuple(_LOADERS)
    needs_esp = True
    kernels_on_esp = False
    #: systemd-stub does, and so does ukiboot.
    tells_partition = True
    kernel_place = f"the partition {Name.A.label}"

    def image_needs(self, machine: str) -> tuple[ImageNeed, ...]:
        """Return the loader and its two add-ons."""
        paths = (_loader_path(machine), *(_addon_path(name) for name in Name))
        return tuple(ImageNeed((path,), "ukiboot") for path in paths)

    def raw_partitions(self, disk_size_mib: int) -> tuple[RawPartition, ...]:
        """Return the two slots, and the partition with the control block."""
        size = _SLOT_SIZE_MIB if disk_size_mib < LARGE_DISK_MIB else _LARGE_SLOT_SIZE_MIB
        return (
            *(RawPartition(name.label, SLOT_TYPE, size) for name in Name),
            RawPartition(CONTROL_NAME, CONTROL_TYPE, _CONTROL_SIZE_MIB),
        )

    def check_boot_type(self, boot_type: BootType) -> None:
        """Accept unified kernel images only."""
        if not boot_type.is_unified:
            raise InstallRefused(
                "ukiboot starts only unified kernel images, and the image has none",
                hint="use --bootloader systemd, or build the image with a unified kernel image",
            )

    def boot_dirs(self, target: BootTarget, boot_type: BootType) -> BootDirs:
        """Return the partitions, and the physical root."""
        scheme = Scheme(Bootloader.UKIBOOT, BootType.ABOOT)
        return BootDirs(scheme, menu=target.root, binaries=target.root, slots=_slots(target))

    def record(self, target: BootTarget) -> BootRecord:
        """Return the record with the PARTUUID of the ESP."""
        assert target.esp_partition is not None, "a disk with an ESP has its row of the table"
        return BootRecord(self.name, FirmwareType.UEFI, target.esp_partition.uuid or None)

    def write_programs(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Write the loader and its add-ons to the ESP, and a control block that starts nothing."""
        machine, esp = os.uname().machine, target.esp
        assert esp is not None, "the target of a loader that needs an ESP has one"
        # First: the loader takes an empty control block for one that starts slot A.
        _slots(target).write_control(_NOTHING)
        loader = deployment.mounted.read_bytes(_loader_path(machine), _MAX_PROGRAM_BYTES)
        directory = slot_directory(loader)
        for name in Name:
            addon = deployment.mounted.read_bytes(_addon_path(name), _MAX_PROGRAM_BYTES)
            home = f"{directory}/{name.label}.efi.extra.d"
            _write(esp, f"{home}/slot_{name.value}.addon.efi", addon)
        program = f"{_BOOT_DIR}/{_LOADERS[machine][1]}"
        _write(esp, program, loader)
        esp.sync()
        if not deployment.generic:
            assert target.esp_partition is not None, "the ESP is a partition"
            firmware_start.ensure_started(target.esp_partition, program, self.title)

    def kernel_sizes(self, resource: BootResource) -> Mapping[str, int]:
        """Return nothing: the kernel has a partition of its own."""
        return {}

    def write_kernel(self, deployment: NewDeployment, boot: BootDirs) -> str:
        """Write the unified kernel image to slot A."""
        booting, slots = deployment.booting, boot.slots
        assert slots is not None, "boot_dirs returned the slots"
        uki = booting.resource
        assert isinstance(uki, UkiFile), "check_boot_type refused others"
        if uki.addon_files:
            raise InstallRefused(
                "this version does not install UKI add-ons with ukiboot",
                hint="leave out --uki-addon",
            )
        check_fits(slots, Name.A, sum(uki.sizes.values()))
        objects = deployment.repository.objects
        return write_to_slot(slots.path(Name.A), booting.image_id, uki, objects)

    def commit(self, deployment: NewDeployment, target: BootTarget, boot: BootDirs) -> None:
        """Write the control block, which makes the loader start slot A."""
        with doing(f"Writing {CONTROL_NAME}"):
            block = _NOTHING.with_slot(Name.A, Slot(MAX_PRIORITY, MAX_TRIES))
            _slots(target).write_control(block)

    def boots(self, target: BootTarget) -> bool:
        """Look for a deployment in the slots that the loader would start."""
        if any(name not in target.raw for name in _names()):
            return False
        return installed_menu.boots(self.boot_dirs(target, BootType.ABOOT), target.root)


def _names() -> tuple[str, ...]:
    return (*(name.label for name in Name), CONTROL_NAME)


def slot_directory(loader: bytes) -> str:
    """Return the directory on the ESP under which a loader pretends to start its slots.

    Raises:
        NotUkiboot: the program names no such directory, or several.
    """
    found = {match[1].decode("utf-16-le") for match in _SLOT_DIR.finditer(loader)}
    if len(found) != 1:
        raise NotUkiboot(
            f"the loader of the image names {len(found)} directories for its slots, not one",
            hint="use the loader of ukiboot 0.2.1 in the image",
        )
    return found.pop().replace("\\", "/")


def _slots(target: BootTarget) -> Slots:
    raw = target.raw
    return Slots(raw[Name.A.label].node, raw[Name.B.label].node, raw[CONTROL_NAME].node)


def _loader_path(machine: str) -> str:
    return f"{_PROGRAMS}/{_LOADERS[machine][0]}"


def _addon_path(name: Name) -> str:
    return f"{_PROGRAMS}/slot_{name.value}.addon.efi"


def _write(esp: Dir, path: str, data: bytes) -> None:
    parent, _, name = path.rpartition("/")
    with doing(f"Writing {path}"), esp.ensure_dir(parent) as directory:
        atomic.write_file(directory, name, data, durable=True)
