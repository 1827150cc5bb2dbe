"""The disks of an installed system, opened once and passed down.

Owns the search for them: the physical root and its repository, and the file systems
with the boot menu and the kernels. Promises of :func:`open_partial_view`: reading a system
changes nothing on it. What is not mounted is mounted read-only and at no place that
others could see; all is let go of at the end of the block; and what cannot be opened
becomes a finding, for a system must be able to show what it runs even then.

GRUB's menu is in ``/sysroot/boot``, unless that only looks so: a system may have a file
system of its own for it, mounted at ``/boot`` by its command line or its fstab, or by
nobody. Looked for in this order: what is mounted at ``/boot`` (an automount is woken up),
unless that is the ESP; ``/sysroot/boot`` where a menu is in it; the extended boot loader
partition of the disk; ``/sysroot/boot`` as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass

from bootc.boot import partitions
from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import Bootloader
from bootc.boot.partitions import NoBackingDevice
from bootc.boot.scheme import BootDirs, Scheme
from bootc.deploy.host.boot_state import STAGED_DIRECTORY, BootedState
from bootc.deploy.host.statedir import StateDir
from bootc.errors import Error, doing, one_line
from bootc.formats.origin import BootType, OriginError
from bootc.fs import detached, mounts
from bootc.fs.dir import Dir
from bootc.repository import layout
from bootc.repository.repository import NotARepository, Repository

_BOOT = "boot"
#: One of these is in a directory that GRUB reads a menu from.
_GRUB_SIGNS = ("loader/entries", "grub2", "grub")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class BootNotFound(Error):
    """The file system with the boot menu is not there."""


@dataclass(frozen=True, slots=True)
class PartialHostView:
    """A host opened to look at it, as far as its parts can be opened.

    Attributes:
        booted: How it was booted.
        physical: The physical root.
        repository: Its repository; None if that cannot be read.
        boot: Where the boot menu and the kernels lie; None if that cannot be read.
        run: Where a staged deployment is announced; None if none ever was.
        read_only: The disk refuses writes.
        findings: Why something could not be opened.
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
    """Tell where this system keeps its boot menu, from what booted it.

    Without a legible origin it counts as booted by a Type 1 entry.
    """
    try:
        with StateDir.open(physical, booted.image_id) as state:
            boot_type = state.read_origin().boot_type
    except (OriginError, OSError):
        boot_type = BootType.BLS
    return Scheme(booted.bootloader, boot_type)


@contextlib.contextmanager
def find_boot_dirs(
    physical: Dir, scheme: Scheme, *, root: str = "/", writable: bool = False
) -> Iterator[BootDirs]:
    """Yield the file systems of a scheme; that of the result says whether ``/boot`` is separate.

    What is mounted is used where it is, unless it must be writable and is not; everything
    else is mounted at no place at all.

    Args:
        physical: The physical root.
        scheme: What is to be found.
        root: Where the system is mounted.
        writable: Open them for writing.

    Raises:
        BootNotFound: there is none.
        Error, OSError: it cannot be found or mounted.
    """
    with contextlib.ExitStack() as stack:
        if scheme.bootloader is not Bootloader.GRUB:
            esp = _enter_esp(stack, physical, writable=writable)
            yield BootDirs(scheme, esp, esp)
            return
        menu, separate = _enter_grub_boot(stack, physical, root, writable=writable)
        scheme = dataclasses.replace(scheme, separate_boot=separate)
        binaries = menu
        if scheme.binaries_on_esp:
            binaries = _enter_esp(stack, physical, writable=writable)
        yield BootDirs(scheme, menu, binaries)


def unreadable(subject: str, exc: BaseException) -> Finding:
    """Return the finding that something cannot be read, and what to do about it."""
    text = one_line(exc)
    if isinstance(exc, PermissionError) and os.geteuid() != 0:
        text += " (run as root to see the rest)"
    return Finding(FindingKind.UNREADABLE, subject, text)


def _enter_repository(
    stack: contextlib.ExitStack, physical: Dir, findings: list[Finding]
) -> Repository | None:
    try:
        # What the disk demands is honoured; a system that tolerates missing fs-verity, or was
        # installed by those who do not ask for it, must still show what it runs. A collection
        # keeps the documents of every deployment that stays, so that no lock is needed.
        return stack.enter_context(Repository.open(physical, require_verity=False, lock=False))
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
        return stack.enter_context(find_boot_dirs(physical, scheme, root=root))
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


def _enter_esp(stack: contextlib.ExitStack, physical: Dir, *, writable: bool) -> Dir:
    device = partitions.backing_device(physical)
    esp = partitions.find_esp(device)
    if esp is None:
        raise BootNotFound(f"no EFI system partition belongs to {device}")
    opened = partitions.open_esp_writable if writable else partitions.open_esp
    return stack.enter_context(opened(esp))


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
        # "." wakes up an automount.
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
