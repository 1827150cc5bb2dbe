"""The disks of an installed system: finding them and opening them, once for each command.

Owns the search for the physical root with its repository, and for the file systems with the
boot menu and the kernels. Promises of :func:`open_partial_view`: it changes nothing on the
system. It mounts unmounted file systems read-only and without a mount point, so other processes
do not see them, and releases everything at the end of the block. A part that cannot be opened
becomes a finding, because a damaged system must still be able to show what it runs.

GRUB's menu is in ``/sysroot/boot``, or on a file system of its own, which the command line or
fstab mounts at ``/boot``, or which is not mounted. The search order: the file system at
``/boot`` (an automount is triggered) unless that is the ESP; ``/sysroot/boot`` if a menu is in
it; the extended boot loader partition of the disk; ``/sysroot/boot``. systemd-boot's menu is on
the extended boot loader partition beside the ESP, or on the ESP. ukiboot's is in partitions of its
own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bootc.boot import partitions
from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import identify
from bootc.boot.partitions import NoBackingDevice
from bootc.boot.scheme import BootDirs, Scheme, uki_artifact
from bootc.deploy.host.boot_state import STAGED_DIRECTORY, BootedState
from bootc.deploy.host.esps import BootNotFound, enter_esps, enter_esps_of_grub
from bootc.deploy.host.statedir import StateDir
from bootc.errors import Error, doing, one_line
from bootc.formats.origin import BootType, Origin, OriginError
from bootc.fs import detached, mounts
from bootc.fs.dir import Dir
from bootc.repository import layout
from bootc.repository.metadata import Metadata
from bootc.repository.repository import NotARepository, Repository

if TYPE_CHECKING:
    from bootc.formats.ukiboot import Name

_BOOT = "boot"
#: What the add-ons of ukiboot append to the kernel command line.
_SLOT_SUFFIX = "androidboot.slot_suffix="
#: A directory from which GRUB reads a menu has at least one of these.
_GRUB_SIGNS = ("loader/entries", "grub2", "grub")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class NoBootMenu(Error):
    """The machine boots without a boot menu, and bootc changes nothing else."""


@dataclass(frozen=True, slots=True)
class PartialHostView:
    """A host opened to look at it, as far as its parts can be opened.

    Attributes:
        booted: How it was booted.
        physical: The physical root.
        repository: Its repository; None if that cannot be read.
        boot: The directories of the boot menu and the kernels; None if they cannot be read.
        run: The directory in which a staged deployment is announced; None if it does not exist.
        read_only: The disk refuses writes.
        findings: The reasons why parts could not be opened.
    """

    booted: BootedState
    physical: Dir
    repository: Repository | None
    boot: BootDirs | None
    run: Dir | None = None
    read_only: bool = False
    findings: tuple[Finding, ...] = ()


@contextlib.contextmanager
def open_partial_view(booted: BootedState, *, root: str = "/") -> Iterator[PartialHostView]:
    """Open the system mounted at ``root`` for reading.

    Raises:
        NotARepository: the physical root holds no repository.
        OSError: there is no physical root, or it cannot be read.
    """
    findings: list[Finding] = []
    with contextlib.ExitStack() as stack:
        with doing("Opening the physical root"):
            physical = stack.enter_context(Dir.open(os.path.join(root, "sysroot")))
        yield PartialHostView(
            booted=booted,
            physical=physical,
            repository=_enter_repository(stack, physical, findings),
            boot=_enter_boot(stack, physical, booted, root, findings),
            run=_enter_run(stack, root, findings),
            read_only=_refuses_writes(physical, findings),
            findings=tuple(findings),
        )


def find_scheme(physical: Dir, booted: BootedState) -> Scheme:
    """Return the scheme of this system's boot menu, from how the system was booted.

    If the origin cannot be read, the system counts as booted by a Type 1 entry, and as one whose
    installation recorded nothing.
    """
    origin = _booted_origin(physical, booted)
    stub_image = f"/{(booted.loader.stub_image or '').lstrip('/')}"
    bootloader = identify(
        booted.loader,
        recorded=None if origin is None else origin.record.bootloader,
        our_uki=uki_artifact(stub_image) is not None and not _has_grub(physical),
    )
    return Scheme(bootloader, BootType.BLS if origin is None else origin.boot_type)


def preferred_esps(physical: Dir, booted: BootedState) -> tuple[str, ...]:
    """Return the PARTUUIDs of the ESP that this system was started from, the best first."""
    origin = _booted_origin(physical, booted)
    recorded = None if origin is None else (origin.record.esp or "").lower()
    return tuple(found for found in (booted.loader.partition, recorded) if found)


def recorded_esps(physical: Dir, booted: BootedState) -> tuple[str, ...]:
    """Return the PARTUUIDs of all ESPs, if the installation wrote several."""
    origin = _booted_origin(physical, booted)
    if origin is None or not origin.record.mirrors:
        return ()
    return tuple(found for found in (origin.record.esp, *origin.record.mirrors) if found)


def booted_slot(booted: BootedState) -> Name | None:
    """Return the slot that ukiboot started the system from, or None.

    The add-on of the slot appends it to the kernel command line. Two different slots there name
    neither.
    """
    from bootc.formats.ukiboot import Name

    words = [word for word in booted.cmdline.split() if word.startswith(_SLOT_SUFFIX)]
    if not words:
        image = (booted.loader.stub_image or "").rpartition("/")[2].lower()
        return next((name for name in Name if image == f"{name.label}.efi"), None)
    named = {word.removeprefix(_SLOT_SUFFIX) for word in words}
    return next((name for name in Name if named == {f"_{name.value}"}), None)


def require_menu(scheme: Scheme) -> None:
    """Refuse a machine without a boot menu.

    Raises:
        NoBootMenu: it has none.
    """
    if scheme.boot_type is BootType.ABOOT and not scheme.in_slots:
        raise NoBootMenu(
            "this machine boots from A/B partitions (boot_type aboot) without ukiboot, "
            "which this version does not change",
            hint="update it with the program that installed it",
        )
    if not scheme.has_menu:
        raise NoBootMenu(
            f"{scheme.bootloader} started this machine without a boot menu, "
            "and this version changes nothing but boot menus",
            hint="restart it through its boot loader",
        )


@contextlib.contextmanager
def find_boot_dirs(
    physical: Dir,
    scheme: Scheme,
    *,
    root: str = "/",
    esps: Sequence[str] = (),
    recorded: Sequence[str] = (),
    writable: bool = False,
    slot: Name | None = None,
) -> Iterator[BootDirs]:
    """Yield the file systems of a scheme; the result's scheme says whether ``/boot`` is separate.

    A mounted file system is used at its mount point, unless it must be writable and is not. Any
    other file system is mounted without a mount point.

    Args:
        physical: The physical root.
        scheme: The scheme of the menu.
        root: Where the system is mounted.
        esps: The result of :func:`preferred_esps`.
        recorded: The result of :func:`recorded_esps`.
        writable: Open them for writing.
        slot: The result of :func:`booted_slot`.

    Raises:
        NoBootMenu: the machine boots without a menu.
        BootNotFound: there is no such file system.
        Error, OSError: a file system cannot be found or mounted.
    """
    require_menu(scheme)
    with contextlib.ExitStack() as stack:
        if scheme.in_slots:
            yield _find_slots(scheme, physical, slot)
            return
        if scheme.menu_on_esp:
            yield enter_esps(stack, scheme, physical, esps, recorded, writable=writable)
            return
        # Few machines have GRUB, and bootc status has to be fast.
        from bootc.boot.grub import reads_generated_menu

        menu, separate = _enter_grub_boot(stack, physical, root, writable=writable)
        scheme = dataclasses.replace(
            scheme, separate_boot=separate, generated=reads_generated_menu(menu)
        )
        dirs = BootDirs(scheme, menu, menu)
        yield enter_esps_of_grub(stack, dirs, physical, esps, recorded, writable=writable)


def unreadable(subject: str, exc: BaseException) -> Finding:
    """Return the finding that something cannot be read, with the way out."""
    text = one_line(exc)
    if isinstance(exc, PermissionError) and os.geteuid() != 0:
        text += " (run as root to see the rest)"
    return Finding(FindingKind.UNREADABLE, subject, text)


def _enter_repository(
    stack: contextlib.ExitStack, physical: Dir, findings: list[Finding]
) -> Repository | None:
    try:
        # A sealed repository is still opened as a secure one. But a system that tolerates missing
        # fs-verity, or whose installer did not seal the repository, must show what it runs. A
        # collection keeps the documents of all deployments that remain, so no lock is needed.
        return stack.enter_context(
            Repository.open(physical, require_verity=False, lock=False, infer=_infer)
        )
    except NotARepository:
        raise
    except (Error, OSError) as exc:
        findings.append(unreadable(f"{physical.path}/{layout.REPOSITORY}", exc))
        return None


def _enter_boot(
    stack: contextlib.ExitStack,
    physical: Dir,
    booted: BootedState,
    root: str,
    findings: list[Finding],
) -> BootDirs | None:
    try:
        scheme = find_scheme(physical, booted)
        esps = preferred_esps(physical, booted)
        recorded, slot = recorded_esps(physical, booted), booted_slot(booted)
        found = find_boot_dirs(physical, scheme, root=root, esps=esps, recorded=recorded, slot=slot)
        return stack.enter_context(found)
    except (Error, OSError) as exc:
        findings.append(unreadable("boot menu", exc))
        return None


def _enter_run(stack: contextlib.ExitStack, root: str, findings: list[Finding]) -> Dir | None:
    path = os.path.join(root, STAGED_DIRECTORY)
    try:
        return stack.enter_context(Dir.open(path))
    except FileNotFoundError:
        return None
    except OSError as exc:
        findings.append(unreadable(path, exc))
        return None


def _refuses_writes(physical: Dir, findings: list[Finding]) -> bool:
    # Not statvfs: the physical root of a booted image is mounted read-only on any disk.
    try:
        with doing(f"Inspecting the device of {physical.path}"):
            return partitions.is_read_only(partitions.backing_device(physical))
    except NoBackingDevice:
        return False
    except OSError as exc:
        findings.append(unreadable(physical.path, exc))
        return False


def _booted_origin(physical: Dir, booted: BootedState) -> Origin | None:
    try:
        with StateDir.open(physical, booted.image_id) as state:
            return state.read_origin()
    except (OriginError, OSError):
        return None


def _has_grub(physical: Dir) -> bool:
    try:
        return physical.exists(f"{_BOOT}/grub2")
    except OSError:
        return False


def _find_slots(scheme: Scheme, physical: Dir, slot: Name | None) -> BootDirs:
    """Find the partitions of ukiboot. Its other files are on the physical root."""
    from bootc.boot.slot_partitions import Slots
    from bootc.formats.ukiboot import CONTROL_NAME, CONTROL_TYPE, SLOT_TYPE, Name

    wanted = {CONTROL_NAME: CONTROL_TYPE} | {name.label: SLOT_TYPE for name in Name}
    device = partitions.backing_device(physical)
    found = partitions.find_named(device, wanted)
    for name in wanted:
        if name not in found:
            raise BootNotFound(f"no partition {name} of ukiboot is on the disk of {device}")
    nodes = Slots(found[Name.A.label], found[Name.B.label], found[CONTROL_NAME], slot)
    return BootDirs(scheme, physical, physical, slots=nodes)


def _enter_device(
    stack: contextlib.ExitStack, device: str, fstype: str, options: str = "", *, writable: bool
) -> Dir:
    opened = detached.open_writable if writable else detached.open_read_only
    return stack.enter_context(opened(device, fstype, options))


def _usable(stack: contextlib.ExitStack, mounted: Dir, *, writable: bool) -> Dir:
    if not writable or not os.statvfs(mounted.fileno()).f_flag & os.ST_RDONLY:
        return mounted
    device, fstype = partitions.backing_device(mounted), mounts.filesystem_of(mounted)
    return _enter_device(stack, device, fstype, writable=True)


def _enter_grub_boot(
    stack: contextlib.ExitStack, physical: Dir, root: str, *, writable: bool
) -> tuple[Dir, bool]:
    """Return GRUB's ``/boot``, and whether it is a file system of its own."""
    mounted = _enter_mounted_boot(stack, physical, root)
    if mounted is not None:
        return _usable(stack, mounted, writable=writable), True
    try:
        within = stack.enter_context(physical.open_dir(_BOOT))
    except FileNotFoundError:
        within = None
    if within is None or not any(within.exists(sign) for sign in _GRUB_SIGNS):
        device = _xbootldr(physical)
        if device is not None:
            fstype = partitions.filesystem_on(device)
            return _enter_device(stack, device, fstype, writable=writable), True
    if within is None:
        raise BootNotFound(f"{physical.path} has no directory {_BOOT}, and its disk no partition")
    if _device_number(within) == _device_number(physical):
        return within, False
    return _usable(stack, within, writable=writable), True


def _enter_mounted_boot(stack: contextlib.ExitStack, physical: Dir, root: str) -> Dir | None:
    """Open what is mounted at ``/boot``, if that is neither the ESP nor of the physical root."""
    path = os.path.join(root, _BOOT)
    try:
        # "." triggers an automount.
        directory = stack.enter_context(Dir(os.open(f"{path}/.", _DIRECTORY), path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    with Dir.open(root) as top:
        if _device_number(directory) in (_device_number(top), _device_number(physical)):
            return None
    if mounts.filesystem_of(directory) == partitions.ESP_FILESYSTEM and _is_esp(
        directory, physical
    ):
        return None
    return directory


def _is_esp(directory: Dir, physical: Dir) -> bool:
    esp = partitions.find_esp(partitions.backing_device(physical))
    return esp is not None and os.stat(esp).st_rdev == _device_number(directory)


def _xbootldr(physical: Dir) -> str | None:
    try:
        return partitions.find_xbootldr(partitions.backing_device(physical))
    except NoBackingDevice:
        return None


def _device_number(directory: Dir) -> int:
    return os.fstat(directory.fileno()).st_dev


def _infer(directory: Dir) -> tuple[Metadata, bool]:
    # bootc status imports this module, and only repositories without a description come here.
    from bootc.repository import legacy

    return legacy.infer(directory)
