"""The choice of a boot loader for a user who names none: one that the image has.

The first of these that the image has, and that starts the machine, is chosen: systemd-boot, GRUB,
ukiboot, and no loader for an image with a unified kernel image. A machine with a BIOS gets GRUB,
unless the disk is for another machine (``--generic-image``). An image has GRUB if it has bootupd or
the files from which bootc installs GRUB itself. Upstream prefers GRUB if the image has bootupd's
updates and the installing system has bootupd, and takes systemd-boot for any other image.

The disk is partitioned for the loader, so the image is read before. An image that is not the one of
the running container is read layer by layer, the topmost first, until the first loader of the list
is found.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Collection, Iterator
from typing import Protocol, TypeVar

from bootc.boot.loader import Bootloader
from bootc.deploy.install import loaders
from bootc.deploy.install.config import InstallConfig
from bootc.deploy.install.loader_installer import FirmwareType, LoaderInstaller
from bootc.deploy.install.request import ANY_UKI, InstallRefused, InstallRequest
from bootc.formats.origin import BootType

_ORDER = (Bootloader.SYSTEMD, Bootloader.GRUB, Bootloader.UKIBOOT, Bootloader.NONE)
_Request = TypeVar("_Request", bound=InstallRequest)


class Find(Protocol):
    """Finds paths in an image."""

    def __call__(
        self, paths: Collection[str], until: Callable[[Collection[str]], bool]
    ) -> Collection[str]:
        """Return those of several paths that the image has; ``until`` may end the search."""
        ...


def with_found_loader(
    request: _Request,
    config: InstallConfig,
    machine: str,
    find: Find,
    *,
    uefi: str = loaders.UEFI,
) -> _Request:
    """Return a request with the boot loader that the image has, unless a loader is named.

    Args:
        request: The request.
        config: The configuration.
        machine: The architecture of the machine.
        find: Finds paths in the image; called at most once.
        uefi: The directory that a machine with UEFI firmware has.

    Raises:
        InstallRefused: the image has no loader that starts the machine.
        Error, OSError: the image cannot be read.
    """
    if request.bootloader or config.bootloader:
        return request
    bios = not request.generic_image and not os.path.isdir(uefi)
    candidates = list(_candidates(request, config, machine, uefi))
    if bios and (starting := [one for one in candidates if FirmwareType.BIOS in one.firmwares]):
        candidates = starting
    paths = {path for one in candidates for path in _paths(one, machine)}
    found = find(paths, lambda found: _is_first_choice(candidates[0], machine, found))
    for loader in candidates:
        if _is_in(loader, machine, found):
            why = "the image has it"
            if loader.name == Bootloader.NONE:
                why = "the image has a unified kernel image and no boot loader"
            elif bios and FirmwareType.BIOS in loader.firmwares:
                why += ", and this machine has a BIOS"
            return dataclasses.replace(
                request, found_loader=(loader.name, why), found_files=frozenset(found)
            )
    raise _nothing_found(candidates, machine, bios=bios)


def starts(loader: LoaderInstaller, boot_type: BootType) -> bool:
    """Tell whether a loader starts this kind of kernel."""
    try:
        loader.check_boot_type(boot_type)
    except InstallRefused:
        return False
    return True


def _candidates(
    request: InstallRequest, config: InstallConfig, machine: str, uefi: str
) -> Iterator[LoaderInstaller]:
    for name in _ORDER:
        asked = dataclasses.replace(request, bootloader=name.value)
        try:
            loader = loaders.choose_loader(asked, config, uefi=uefi)
        except InstallRefused:
            continue  # This version does not install it on this machine.
        wanted = request.boot_type
        if machine in loader.machines and (wanted is None or starts(loader, wanted)):
            yield loader


def _paths(loader: LoaderInstaller, machine: str) -> Iterator[str]:
    for needs in loader.image_choices(machine):
        for need in needs:
            yield from need.paths
    if not starts(loader, BootType.BLS):
        yield ANY_UKI


def _is_in(loader: LoaderInstaller, machine: str, found: Collection[str]) -> bool:
    if not starts(loader, BootType.BLS) and ANY_UKI not in found:
        return False
    return loaders.has_one_of(loader.image_choices(machine), found)


def _is_first_choice(loader: LoaderInstaller, machine: str, found: Collection[str]) -> bool:
    """Tell whether no further file changes the choice of the loader, or who installs it."""
    preferred = loader.image_choices(machine)[:1]
    return _is_in(loader, machine, found) and loaders.has_one_of(preferred, found)


def _nothing_found(
    candidates: Collection[LoaderInstaller], machine: str, *, bios: bool
) -> InstallRefused:
    where = "a machine with a BIOS" if bios else "this machine"
    packages = [
        " and ".join(dict.fromkeys(need.package for need in loader.image_needs(machine)))
        for loader in candidates
    ]
    return InstallRefused(
        f"the image has no boot loader for {where}",
        hint=f"build it with {', or '.join(filter(None, packages))}; or name a loader with "
        "--bootloader",
    )
