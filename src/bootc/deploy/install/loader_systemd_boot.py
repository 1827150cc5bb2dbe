"""Installs systemd-boot from the image to the EFI system partition, with ``bootctl``."""

from __future__ import annotations

import logging
import os
import re
import uuid
from functools import partial

from bootc.boot import bootctl
from bootc.boot.firmware_entries import ProgramPlace, ensure_entry
from bootc.boot.loader import Bootloader
from bootc.boot.scheme import BootDirs, Scheme
from bootc.boot.systemd_boot import installed_version, loader_programs
from bootc.deploy.install import loader_menu
from bootc.deploy.install.loader_installer import BootTarget, NewDeployment
from bootc.deploy.install.partition import Partition
from bootc.deploy.install.secureboot import write_keys
from bootc.errors import Error, doing, one_line
from bootc.events import Message, Sink
from bootc.formats.origin import BootRecord, BootType
from bootc.fs import atomic
from bootc.fs.dir import Dir
from bootc.kernel import mount
from bootc.kernel.efivars import EFIVARS
from bootc.kernel.libc import AT_EMPTY_PATH
from bootc.repository.content import read_content

_log = logging.getLogger(__name__)

#: Upstream's configuration of systemd-boot for unified kernel images; bootctl's file wins.
_LOADER_CONF = "loader/loader.conf"
_LOADER_CONF_TEXT = b"timeout 5"


class SystemdBootInstaller:
    """systemd-boot, started by UEFI firmware. Menu and kernels are on the ESP.

    The methods are those of :class:`~bootc.deploy.install.loader_installer.LoaderInstaller`.
    """

    name = Bootloader.SYSTEMD.value
    title = "systemd-boot"
    tools = ("bootctl",)
    needs_esp = True
    tells_partition = True
    kernel_place = "the EFI system partition"

    def check_boot_type(self, boot_type: BootType) -> None:
        """Accept all boot types."""

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
        return BootRecord(self.name, "uefi", partition.uuid or None)

    def write_programs(
        self, deployment: NewDeployment, target: BootTarget, boot: BootDirs, sink: Sink
    ) -> None:
        """Run bootctl, check the firmware's boot entries, and write the keys of Secure Boot."""
        esp, partition = _esp_of(target)
        _run_bootctl(deployment.mounted, esp, boot.scheme.boot_type, generic=deployment.generic)
        if not deployment.generic:
            _check_firmware(esp, partition)
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
    """Run bootctl on the image, with the ESP at its ``/boot`` and a ``/tmp`` to write to.

    Both are mounted on directory descriptors, so a link in the image cannot redirect them. They
    disappear when the image is unmounted.
    """
    with doing("Mounting the EFI system partition into the image"):
        esp_fd = mount.open_tree(esp.fileno(), "", mount.OPEN_TREE_CLONE | AT_EMPTY_PATH)
        _mount_over(esp_fd, image, "boot")
    if image.exists("tmp"):
        with doing("Mounting a temporary directory into the image"):
            _mount_over(_tmpfs(), image, "tmp")
    bootctl.install(root=image.path, esp_path="/boot", generic=generic)
    if boot_type is BootType.UKI and not esp.exists(_LOADER_CONF):
        with doing(f"Writing {_LOADER_CONF}"), esp.ensure_dir("loader") as directory:
            atomic.write_file(directory, "loader.conf", _LOADER_CONF_TEXT, durable=True)


def _check_firmware(esp: Dir, partition: Partition) -> None:
    """Make sure that the firmware of this machine starts the new systemd-boot.

    bootctl writes no entry if it takes a chroot or a container for no machine. Without an entry
    the firmware starts ``EFI/BOOT`` of the disk, unless another entry comes first.
    """
    programs = loader_programs(esp)
    number = re.search(r"[0-9]+\Z", partition.node)
    if not programs or number is None or not partition.uuid or not os.path.isdir(EFIVARS):
        return
    place = ProgramPlace(
        int(number[0]),
        partition.first_sector,
        partition.sectors,
        uuid.UUID(partition.uuid),
        programs[0],
    )
    try:
        if ensure_entry(place, "Linux Boot Manager"):
            _log.info("bootctl wrote no boot entry of the firmware; the installer did")
    except (Error, OSError) as exc:
        _log.warning(
            "the firmware has no boot entry for the new disk, and starts its EFI/BOOT: %s",
            one_line(exc),
        )


def _mount_over(mount_fd: int, image: Dir, name: str) -> None:
    try:
        with image.open_dir(name) as target:
            mount.move_mount(mount_fd, "", target.fileno(), "")
    finally:
        os.close(mount_fd)


def _tmpfs() -> int:
    fs_fd = mount.fsopen("tmpfs")
    try:
        mount.fsconfig_create(fs_fd)
        attrs = mount.MOUNT_ATTR_NOEXEC | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
        return mount.fsmount(fs_fd, attrs=attrs)
    finally:
        os.close(fs_fd)
