"""Opens the EFI system partitions of a system: the main one and its mirrors.

A mirror that cannot be opened is no error: the machine boots without it. The result has the reason.

systemd-boot reads its menu on the extended boot loader partition beside the ESP that it was started
from, else on this ESP. The menu of GRUB is elsewhere, and the ESPs have its programs and unified
kernel images.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence

from bootc.boot import partitions
from bootc.boot.loader import Bootloader
from bootc.boot.menu_read import read_files
from bootc.boot.partitions import Esps, NoBackingDevice
from bootc.boot.scheme import BootDirs, Mirror, Scheme
from bootc.errors import Error, one_line
from bootc.fs.dir import Dir


class BootNotFound(Error):
    """There is no file system with a boot menu."""


def enter_esps(
    stack: contextlib.ExitStack,
    scheme: Scheme,
    physical: Dir,
    preferred: Sequence[str],
    recorded: Sequence[str],
    *,
    writable: bool,
) -> BootDirs:
    """Open the ESPs of a system that has its menu there.

    Args:
        stack: Closes them.
        scheme: The scheme of the menu.
        physical: The physical root.
        preferred: The PARTUUIDs of the main ESP, the best first.
        recorded: The PARTUUIDs of all ESPs, if the installation wrote several.
        writable: Open them for writing.

    Raises:
        BootNotFound: there is no ESP.
        Error, OSError: the main ESP cannot be found or mounted.
    """
    esps = _esps_of(physical, preferred)
    main = _enter(stack, scheme, esps.main, writable=writable)
    if scheme.bootloader is Bootloader.NONE:
        from bootc.boot.firmware_entries import Firmware

        main = dataclasses.replace(main, firmware=Firmware(partitions.place_of(esps.main)))
    if scheme.bootloader is Bootloader.GRUB_CC:
        return main
    return _with_mirrors(stack, main, esps, recorded, writable=writable)


def enter_esps_of_grub(
    stack: contextlib.ExitStack,
    dirs: BootDirs,
    physical: Dir,
    preferred: Sequence[str],
    recorded: Sequence[str],
    *,
    writable: bool,
) -> BootDirs:
    """Open the ESPs of a system whose menu GRUB reads elsewhere, as far as they are needed.

    Args:
        stack: Closes them.
        dirs: GRUB's ``/boot``.
        physical: The physical root.
        preferred: The PARTUUIDs of the main ESP, the best first.
        recorded: The PARTUUIDs of all ESPs, if the installation wrote several.
        writable: Open them for writing.

    Raises:
        BootNotFound: there is no ESP, and there must be one.
        Error, OSError: the main ESP cannot be found or mounted.
    """
    if dirs.scheme.binaries_on_esp:
        esps = _esps_of(physical, preferred)
        opened = _enter_esp(stack, esps.main, writable=writable)
        main = dataclasses.replace(dirs, binaries=opened)
        return _with_mirrors(stack, main, esps, recorded, writable=writable)
    # A machine with a BIOS has no ESP, and a single ESP has nothing that changes.
    found = _further_esps(physical, preferred)
    if found is None:
        return dirs
    programs = _enter_esp(stack, found.main, writable=False)
    main = dataclasses.replace(dirs, programs=programs)
    return _with_mirrors(stack, main, found, recorded, writable=writable)


def _further_esps(physical: Dir, preferred: Sequence[str]) -> Esps | None:
    """Return the ESPs of a system that has several; None if it has one or no ESP."""
    try:
        found = partitions.find_esps(partitions.backing_device(physical), preferred)
    except NoBackingDevice:
        return None
    return found if found is not None and found.mirrors else None


def _esps_of(physical: Dir, preferred: Sequence[str]) -> Esps:
    device = partitions.backing_device(physical)
    esps = partitions.find_esps(device, preferred)
    if esps is None:
        raise BootNotFound(f"no EFI system partition belongs to {device}")
    return esps


def _with_mirrors(
    stack: contextlib.ExitStack,
    main: BootDirs,
    esps: Esps,
    recorded: Sequence[str],
    *,
    writable: bool,
) -> BootDirs:
    lost = "it is not there any more; its disk may be missing"
    mirrors = [Mirror(f"PARTUUID={name}", None, lost) for name in esps.missing(recorded)]
    for device in esps.mirrors:
        with contextlib.ExitStack() as opening:
            try:
                dirs = _enter_mirror(opening, main, device, writable=writable)
            except (Error, OSError) as exc:
                mirrors.append(Mirror(device, None, one_line(exc)))
            else:
                stack.enter_context(opening.pop_all())
                mirrors.append(Mirror(device, dirs))
    return dataclasses.replace(main, mirrors=tuple(mirrors))


def _enter_mirror(
    stack: contextlib.ExitStack, main: BootDirs, device: str, *, writable: bool
) -> BootDirs:
    if main.scheme.menu_on_esp:
        return _enter(stack, main.scheme, device, writable=writable, programs_writable=writable)
    opened = _enter_esp(stack, device, writable=writable)
    if main.scheme.binaries_on_esp:
        return BootDirs(main.scheme, main.menu, opened)
    return BootDirs(main.scheme, main.menu, main.binaries, opened)


def _enter(
    stack: contextlib.ExitStack,
    scheme: Scheme,
    esp: str,
    *,
    writable: bool,
    programs_writable: bool = False,
) -> BootDirs:
    """Open an ESP, or with systemd-boot the XBOOTLDR partition beside it.

    systemd-boot shows the entries of both. A machine whose entries are on the ESP only, by an
    older version of bootc, keeps them there.
    """
    boot = None
    if scheme.bootloader is Bootloader.SYSTEMD:
        boot = partitions.find_xbootldr_beside(esp)
    if boot is not None and not (_has_entries(scheme, esp) and not _has_entries(scheme, boot)):
        programs = _enter_esp(stack, esp, writable=programs_writable)
        opened = _enter_esp(stack, boot, writable=writable)
        return BootDirs(scheme, opened, opened, programs)
    opened = _enter_esp(stack, esp, writable=writable)
    return BootDirs(scheme, opened, opened)


def _enter_esp(stack: contextlib.ExitStack, esp: str, *, writable: bool) -> Dir:
    opened = partitions.open_esp_writable if writable else partitions.open_esp
    return stack.enter_context(opened(esp))


def _has_entries(scheme: Scheme, device: str) -> bool:
    with partitions.open_esp(device) as opened:
        return bool(read_files(BootDirs(scheme, opened, opened), staged=False).items)
