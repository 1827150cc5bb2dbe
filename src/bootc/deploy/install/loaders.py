"""The choice of the boot loader that an installation installs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection

from bootc.boot.loader import Bootloader
from bootc.deploy.install.config import InstallConfig
from bootc.deploy.install.loader_grub import GrubBiosInstaller
from bootc.deploy.install.loader_installer import FirmwareType, LoaderInstaller
from bootc.deploy.install.loader_none import NoLoaderInstaller
from bootc.deploy.install.loader_systemd_boot import SystemdBootInstaller
from bootc.deploy.install.loader_ukiboot import UkibootInstaller
from bootc.deploy.install.request import InstallRefused, InstallRequest
from bootc.printable import listed

_DEFAULT = Bootloader.SYSTEMD.value
_UEFI = "/sys/firmware/efi"
#: One of each boot loader that this version installs.
INSTALLERS: tuple[LoaderInstaller, ...] = (
    SystemdBootInstaller(),
    GrubBiosInstaller(),
    NoLoaderInstaller(),
    UkibootInstaller(),
)


def choose_loader(
    request: InstallRequest, config: InstallConfig, *, uefi: str = _UEFI
) -> LoaderInstaller:
    """Return the boot loader to install: that of the request, else that of the configuration.

    Args:
        request: The request.
        config: The configuration.
        uefi: The directory that a machine with UEFI firmware has.

    Raises:
        InstallRefused: this version cannot install it.
    """
    asked = request.bootloader or config.bootloader or _DEFAULT
    installer = next((one for one in INSTALLERS if one.name == asked), None)
    if installer is None:
        raise InstallRefused(
            f"bootloader {asked} is not supported yet by this version",
            hint=f"use --bootloader {_DEFAULT}",
        )
    # A disk for a machine with UEFI can be made on any machine.
    is_for_this = installer.firmware is FirmwareType.BIOS and not request.generic_image
    if is_for_this and os.path.isdir(uefi):
        raise InstallRefused(
            f"bootloader {asked} is not supported yet by this version on a machine with UEFI",
            hint=f"use --bootloader {_DEFAULT}; --generic-image makes a disk for a BIOS machine",
        )
    return installer


def require_in_image(
    loader: LoaderInstaller, machine: str, has: Callable[[Collection[str]], Collection[str]]
) -> None:
    """Check that an image has what a loader needs of it.

    Args:
        loader: The loader.
        machine: The architecture of the machine.
        has: Returns those of several paths that the image has.

    Raises:
        InstallRefused: a file is missing; the message names its package.
    """
    needs = loader.image_needs(machine)
    if not needs:
        return
    found = has([path for need in needs for path in need.paths])
    lacking = [need for need in needs if not any(path in found for path in need.paths)]
    if lacking:
        packages = listed(dict.fromkeys(need.package for need in lacking))
        raise InstallRefused(
            f"the image cannot install {loader.title}: it has no /{lacking[0].paths[0]}",
            hint=f"build it with {packages}, or choose another boot loader with --bootloader",
        )


def finds_root_by_type(
    loader: LoaderInstaller, request: InstallRequest, config: InstallConfig
) -> bool:
    """Return whether the installed machine finds its root partition by the partition's type.

    A loader that does not tell the partition needs the root by its UUID. Only a user who asked for
    a loader by name is known to have an image that finds its root in this way.
    """
    if not loader.tells_partition:
        return False
    if config.discoverable_partitions is not None:
        return config.discoverable_partitions
    return (request.bootloader or config.bootloader) == loader.name
