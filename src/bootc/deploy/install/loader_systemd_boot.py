"""Installs systemd-boot from the image to the EFI system partition, with ``bootctl``."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial

from bootc.boot import bootctl
from bootc.boot.image_content import file_size
from bootc.boot.loader import Bootloader
from bootc.boot.scheme import BootDirs, Scheme
from bootc.boot.systemd_boot import installed_version, loader_programs
from bootc.deploy.install import firmware_start, loader_menu
from bootc.deploy.install.image_mounts import mount_directory, mount_temporary
from bootc.deploy.install.loader_installer import (
    BootTarget,
    FirmwareType,
    ImageNeed,
    LoaderInstaller,
    NewDeployment,
)
from bootc.deploy.install.partition import Partition
from bootc.deploy.install.secureboot import write_keys
from bootc.errors import doing
from bootc.events import Message, Sink
from bootc.formats.origin import BootRecord, BootType
from bootc.formats.tree import Directory
from bootc.fs import atomic
from bootc.fs.dir import Dir
from bootc.repository.content import read_content

_log = logging.getLogger(__name__)

_PROGRAMS = "usr/lib/systemd/boot/efi"
#: In the names of its programs, by architecture.
_SUFFIXES = {"x86_64": "x64", "aarch64": "aa64"}
#: Where bootctl writes one of the programs.
_COPIES = ("EFI/systemd", "EFI/BOOT")
#: Upstream's configuration of systemd-boot for unified kernel images; bootctl's file wins.
_LOADER_CONF = "loader/loader.conf"
_LOADER_CONF_TEXT = b"timeout 5"


class SystemdBootInstaller(LoaderInstaller):
    """systemd-boot, started by UEFI firmware. Menu and kernels are on the ESP."""

    name = Bootloader.SYSTEMD.value
    title = "systemd-boot"
    firmwares = (FirmwareType.UEFI,)
    tools = ("bootctl",)
    machines = ("x86_64", "aarch64")
    needs_esp = True
    kernels_on_esp = True
    tells_partition = True
    kernel_place = "the EFI system partition"

    def program_sizes(self, tree: Directory, *, generic: bool) -> Mapping[str, int]:
        """Return the two copies of the program that bootctl writes."""
        # Of a signed and an unsigned program bootctl writes one.
        paths = (path for suffix in _SUFFIXES.values() for path in _programs(suffix))
        size = max(file_size(tree, path) or 0 for path in paths)
        return {f"systemd-boot in {place}": size for place in _COPIES} if size else {}

    def image_needs(self, machine: str) -> tuple[ImageNeed, ...]:
        """Return the program. If it is missing, bootctl takes that of the installing system."""
        return (ImageNeed(_programs(_SUFFIXES[machine]), "systemd-boot-efi", replaceable=True),)

    def boot_dirs(self, target: BootTarget, boot_type: BootType) -> BootDirs:
        """Return the extended boot loader partition, else the ESP."""
        esp, _ = _esp_of(target)
        scheme = Scheme(Bootloader.SYSTEMD, boot_type)
        if target.xbootldr is not None:
            return BootDirs(scheme, target.xbootldr, target.xbootldr, programs=esp)
        return BootDirs(scheme, menu=esp, binaries=esp)

    def record(self, target: BootTarget) -> BootRecord:
        """Return the record with the PARTUUID of the ESP."""
        _, partition = _esp_of(target)
        return BootRecord(self.name, FirmwareType.UEFI, partition.uuid or None)

    def write_programs(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Run bootctl, check the firmware's boot entries, and write the keys of Secure Boot."""
        esp, partition = _esp_of(target)
        _run_bootctl(deployment.mounted, esp, boot.scheme.boot_type, generic=deployment.generic)
        if not deployment.generic:
            _ensure_started(esp, partition)
        read = partial(read_content, deployment.repository.objects)
        for path in write_keys(deployment.tree, read, esp):
            sink(Message(f"Wrote Secure Boot key: {path}"))

    def write_kernel(self, deployment: NewDeployment, boot: BootDirs) -> str:
        """Write the kernel to the ESP."""
        return loader_menu.write_kernel(deployment, boot)

    def commit(self, deployment: NewDeployment, target: BootTarget, boot: BootDirs) -> None:
        """Write the menu."""
        esp, _ = _esp_of(target)
        loader_menu.write_menu(deployment, boot, systemd_version=installed_version(esp))


def _esp_of(target: BootTarget) -> tuple[Dir, Partition]:
    assert target.esp is not None, "the target of a loader that needs an ESP has one"
    assert target.esp_partition is not None, "so has its partition table"
    return target.esp, target.esp_partition


def _run_bootctl(image: Dir, esp: Dir, boot_type: BootType, *, generic: bool) -> None:
    """Run bootctl on the image, with the ESP at its ``/boot`` and a ``/tmp`` to write to."""
    with doing("Mounting the EFI system partition into the image"):
        mount_directory(esp, image, "boot")
    if image.exists("tmp"):
        mount_temporary(image)
    bootctl.install(root=image.path, esp_path="/boot", generic=generic)
    if boot_type is BootType.UKI and not esp.exists(_LOADER_CONF):
        with doing(f"Writing {_LOADER_CONF}"), esp.ensure_dir("loader") as directory:
            atomic.write_file(directory, "loader.conf", _LOADER_CONF_TEXT, durable=True)


def _ensure_started(esp: Dir, partition: Partition) -> None:
    """Write the boot entry of the firmware, if bootctl took a chroot for no machine."""
    for program in loader_programs(esp)[:1]:
        if firmware_start.ensure_started(partition, program, "Linux Boot Manager"):
            _log.info("bootctl wrote no boot entry of the firmware; the installer did")


def _programs(suffix: str) -> tuple[str, ...]:
    path = f"{_PROGRAMS}/systemd-boot{suffix}.efi"
    return path, f"{path}.signed"
