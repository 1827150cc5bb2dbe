"""The choice of the boot loader that an installation installs."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable

from bootc.boot.loader import Bootloader
from bootc.deploy.install.config import InstallConfig
from bootc.deploy.install.loader_grub import GrubAnyInstaller, GrubBiosInstaller, GrubUefiInstaller
from bootc.deploy.install.loader_installer import FirmwareType, ImageNeed, LoaderInstaller
from bootc.deploy.install.loader_none import NoLoaderInstaller
from bootc.deploy.install.loader_systemd_boot import SystemdBootInstaller
from bootc.deploy.install.loader_ukiboot import UkibootInstaller
from bootc.deploy.install.request import FilesystemRequest, InstallRefused, InstallRequest
from bootc.printable import listed

_DEFAULT = Bootloader.SYSTEMD.value
UEFI = "/sys/firmware/efi"
#: One of each boot loader that this version installs.
INSTALLERS: tuple[LoaderInstaller, ...] = (
    SystemdBootInstaller(),
    GrubUefiInstaller(),
    GrubBiosInstaller(),
    GrubAnyInstaller(),
    NoLoaderInstaller(),
    UkibootInstaller(),
)


def choose_loader(
    request: InstallRequest, config: InstallConfig, *, uefi: str = UEFI
) -> LoaderInstaller:
    """Return the boot loader to install: of the request, of the configuration, or of the image.

    If it has a form for each firmware, the firmware of this machine decides. ``--generic-image``
    chooses the form for most kinds of firmware that the destination can have.

    Args:
        request: The request.
        config: The configuration.
        uefi: The directory that a machine with UEFI firmware has.

    Raises:
        InstallRefused: this version cannot install it.
    """
    found = request.found_loader[0] if request.found_loader else _DEFAULT
    asked = request.bootloader or config.bootloader or found
    named = [installer for installer in INSTALLERS if installer.name == asked]
    if not named:
        raise InstallRefused(
            f"bootloader {asked} is not supported yet by this version",
            hint=f"use --bootloader {_DEFAULT}",
        )
    if request.generic_image:
        # Mounted file systems have no place for GRUB's program for a BIOS.
        if isinstance(request, FilesystemRequest):
            named = [one for one in named if FirmwareType.BIOS not in one.firmwares]
        return max(named, key=lambda installer: len(installer.firmwares))
    firmware = FirmwareType.UEFI if os.path.isdir(uefi) else FirmwareType.BIOS
    # A loader with one form is installed on any machine: the disk may be for another one.
    return next((one for one in named if one.firmwares == (firmware,)), named[0])


def require_in_image(
    loader: LoaderInstaller,
    machine: str,
    has: Callable[[Collection[str]], Collection[str]],
    *,
    installs_itself: bool,
) -> Collection[str]:
    """Check that an image has what a loader needs of it, and return the files that were found.

    Args:
        loader: The loader.
        machine: The architecture of the machine.
        has: Returns those of several paths that the image has.
        installs_itself: The image is the installing system, so nothing can take the place of a
            missing file.

    Raises:
        InstallRefused: a file is missing; the message names its package.
    """
    choices = [
        [need for need in needs if installs_itself or not need.replaceable]
        for needs in loader.image_choices(machine)
    ]
    if not all(choices):
        return ()
    found = has([path for needs in choices for need in needs for path in need.paths])
    if has_one_of(choices, found):
        return found
    # The set of which the image has most; if it has nothing, the last one, of Debian's packages.
    needs = max(reversed(choices), key=lambda needs: len(needs) - len(_lacking(needs, found)))
    lacking = _lacking(needs, found)
    packages = listed(dict.fromkeys(need.package for need in lacking))
    raise InstallRefused(
        f"the image cannot install {loader.title}: it has no /{lacking[0].paths[0]}",
        hint=f"build it with {packages}, or choose another boot loader with --bootloader",
    )


def has_one_of(choices: Iterable[Collection[ImageNeed]], found: Collection[str]) -> bool:
    """Tell whether an image has all files of one of several sets.

    Args:
        choices: The sets.
        found: The paths that the image has.
    """
    return any(not _lacking(needs, found) for needs in choices)


def _lacking(needs: Collection[ImageNeed], found: Collection[str]) -> list[ImageNeed]:
    return [need for need in needs if not any(path in found for path in need.paths)]


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
