"""The choice of the boot loader that an installation installs."""

from __future__ import annotations

from bootc.boot.loader import Bootloader
from bootc.deploy.install.config import InstallConfig
from bootc.deploy.install.loader_installer import LoaderInstaller
from bootc.deploy.install.loader_systemd_boot import SystemdBootInstaller
from bootc.deploy.install.request import InstallRefused, InstallRequest

_DEFAULT = Bootloader.SYSTEMD.value
#: One of each boot loader that this version installs.
INSTALLERS: tuple[LoaderInstaller, ...] = (SystemdBootInstaller(),)


def choose_loader(request: InstallRequest, config: InstallConfig) -> LoaderInstaller:
    """Return the boot loader to install: that of the request, else that of the configuration.

    Raises:
        InstallRefused: this version cannot install it.
    """
    asked = request.bootloader or config.bootloader or _DEFAULT
    if asked == Bootloader.NONE:
        raise InstallRefused("Bootloader set to none is not supported with the composefs backend")
    for installer in INSTALLERS:
        if installer.name == asked:
            return installer
    raise InstallRefused(
        f"bootloader {asked} is not supported yet by this version",
        hint=f"use --bootloader {_DEFAULT}",
    )


def finds_root_by_type(
    loader: LoaderInstaller, request: InstallRequest, config: InstallConfig
) -> bool:
    """Return whether the installed machine finds its root partition by the partition's type.

    Only a user who asked for a loader by name is known to have an image that finds its root in
    this way.
    """
    if config.discoverable_partitions is not None:
        return config.discoverable_partitions
    return loader.tells_partition and (request.bootloader or config.bootloader) == loader.name
