"""``bootc install to-filesystem`` and ``to-existing-root``: installs to file systems that exist.

Promises:

- Before the boot entry, a failure or an interruption removes what the installation created in the
  root file system. It says so, or what is left. Programs of the boot loader on the ESP are left.
- With ``--replace alongside`` the old system boots until the new one is complete, except for its
  boot entry.
- Nothing is unmounted that the user mounted.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bootc.boot.partitions import ESP_FILESYSTEM, ESP_OPTIONS, filesystem_on
from bootc.deploy.install import checks, clearing, filesystem, interrupted, running_image
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.clearing import UndoneUnlessKept
from bootc.deploy.install.config import InstallConfig, read_config
from bootc.deploy.install.finalize import finalize_filesystem
from bootc.deploy.install.installation import Opened, choose_by_image, install
from bootc.deploy.install.loader_installer import BootTarget, MirrorTarget
from bootc.deploy.install.loaders import choose_loader
from bootc.deploy.install.partition import MIB
from bootc.deploy.install.request import FilesystemRequest, Installed, InstallRefused, Replace
from bootc.deploy.install.root_spec import root_arguments
from bootc.deploy.install.target_filesystem import (
    TargetFilesystems,
    TargetMount,
    check_empty,
    check_no_other_mounts,
    find_filesystems,
)
from bootc.deploy.old_root import mark_old_root
from bootc.errors import Error, one_line
from bootc.events import Message, Sink
from bootc.fs import host_mounts, mounts
from bootc.fs.dir import Dir
from bootc.repository import layout

_log = logging.getLogger(__name__)

_TOOLS = ("blkid", "lsblk")
#: Time to think before the running system is overwritten.
_DELAY_S = 20.0
_HOST = "/proc/1/root"
_WARNING = (
    "----------------------------",
    "WARNING: This operation will OVERWRITE THE BOOTED HOST ROOT FILESYSTEM and is NOT REVERSIBLE.",
    f"Waiting {_DELAY_S:.0f} s to continue; interrupt (Control-C) to cancel.",
    "----------------------------",
)


@dataclass(frozen=True, slots=True)
class FilesystemPlan:
    """What happens to the file systems.

    Attributes:
        decisions: The choices that all installations have.
        found: The file systems.
        root_kargs: The kernel arguments that mount them.
        ours: Names in the root that an unfinished installation left.
    """

    decisions: Decisions
    found: TargetFilesystems
    root_kargs: tuple[str, ...]
    ours: tuple[str, ...] = ()


def install_to_filesystem(request: FilesystemRequest, sink: Sink) -> Installed | None:
    """Install an image to mounted file systems; return None after a dry run.

    Raises:
        InstallRefused: the request cannot be met. Nothing was changed.
        Error, OSError: the installation failed.
    """
    if request.from_container:
        mounts.private_mount_namespace()
        running_image.mount_host_directories(request.source)
    machine = os.uname().machine
    config = read_config(machine) or InstallConfig()
    checks.require_root()
    request = choose_by_image(request, config, machine)
    plan = plan_filesystem(request, config, machine)
    return install(request, FilesystemDestination(request, plan), sink)


def install_to_existing_root(request: FilesystemRequest, sink: Sink) -> Installed | None:
    """Install an image to the root file system of the running system.

    The root of the request is where the user mounted it. If that does not exist, the root of the
    host is mounted, with all that is mounted below it.

    Raises:
        As :func:`install_to_filesystem`.
    """
    if os.path.exists(request.root):
        return install_to_filesystem(request, sink)
    checks.require_root()
    mounts.private_mount_namespace()
    with host_mounts.attached_host_root() as path:
        return install_to_filesystem(dataclasses.replace(request, root=path), sink)


def plan_filesystem(
    request: FilesystemRequest, config: InstallConfig, machine: str
) -> FilesystemPlan:
    """Decide how to install to mounted file systems, and check that this machine can.

    Raises:
        InstallRefused: the request cannot be met, or the file systems must not be written.
        UnknownFilesystem: bootc cannot use the root file system.
        ToolMissing: a program is not installed.
    """
    checks.require_root()
    loader = choose_loader(request, config)
    # Found out later, the old boot loader would be gone already.
    if loader.raw_partitions(0) or loader.needs_bios_boot:
        raise InstallRefused(
            f"{loader.title} starts from partitions of its own, and to-filesystem makes none",
            hint="use bootc install to-disk, or another --bootloader",
        )
    checks.check_tools((*loader.tools, *_TOOLS))
    found = find_filesystems(request.root, loader)
    decisions = checks.decide(request, config, machine, found.filesystem)
    checks.check_machine(decisions)
    reason = filesystem.lacks_verity(found.filesystem, found.root.device)
    if reason is not None and not decisions.allow_missing_verity:
        raise InstallRefused(reason, hint="enable it, or give --allow-missing-verity")
    checks.check_kernel(decisions)
    ours = _check_content(request, found)
    return FilesystemPlan(decisions, found, root_arguments(request, config, found), tuple(ours))


def _check_content(request: FilesystemRequest, found: TargetFilesystems) -> Sequence[str]:
    """Check the content of the root, and return the names in it that are removed."""
    with Dir.open(found.path) as root:
        ours = clearing.leftovers(root)
        if ours and interrupted.root_boots(request.root):
            # Only the removal of the mark was missing.
            ours = []
        installed = layout.REPOSITORY not in ours and root.exists(layout.REPOSITORY)
    if request.replace is Replace.WIPE:
        check_no_other_mounts(found)
        return ours
    if installed:
        raise InstallRefused(
            f"{found.path} has an installation already",
            hint="--replace wipe removes everything; to change only its image: bootc switch",
        )
    if request.replace is None:
        check_empty(found, ours)
    return ours


class FilesystemDestination:
    """Mounted file systems, as the destination of an installation.

    The methods are those of :class:`~bootc.deploy.install.installation.Destination`.
    """

    __slots__ = ("_plan", "_request")

    def __init__(self, request: FilesystemRequest, plan: FilesystemPlan) -> None:
        self._request = request
        self._plan = plan

    @property
    def decisions(self) -> Decisions:
        """The choices that all installations have."""
        return self._plan.decisions

    @property
    def facts(self) -> Sequence[str]:
        """The file systems."""
        return _places(self._plan.found)

    @property
    def steps(self) -> Sequence[str]:
        """The steps before the pull."""
        path = self._plan.found.path
        if self._request.replace is Replace.WIPE:
            return (f"Remove everything in {path}, and later the content of the boot partitions",)
        if self._request.replace is Replace.ALONGSIDE:
            return (f"Keep everything in {path}, but later not the content of the boot partitions",)
        return ()

    def check_room(self, needed_mib: int) -> None:
        """Check the free space, or all space if everything is removed."""
        volume = os.statvfs(self._plan.found.path)
        wipe = self._request.replace is Replace.WIPE
        have_mib = volume.f_frsize * (volume.f_blocks if wipe else volume.f_bavail) // MIB
        if have_mib < needed_mib:
            raise InstallRefused(
                f"{self._plan.found.path} is too small for the image: it has {have_mib} MiB, "
                f"at least {needed_mib} MiB are needed",
                hint="make room in it, or --replace wipe removes everything in it"
                if not wipe
                else "use a larger file system, or a smaller image",
            )

    @contextmanager
    def opened(self, sink: Sink) -> Iterator[Opened]:
        """Mount the ESP if it is not mounted, and remove what shall be replaced."""
        request, found = self._request, self._plan.found
        if not request.acknowledge_destructive and _is_host(found.path):
            for line in _WARNING:
                sink(Message(line))
            time.sleep(_DELAY_S)
        with ExitStack() as stack:
            target = _open_target(stack, self._plan)
            if request.replace is Replace.WIPE:
                sink(Message("Wiping contents of root"))
                clearing.remove(target.root, target.root.names())
            else:
                clearing.remove(target.root, self._plan.ours)
            undone = stack.enter_context(UndoneUnlessKept(target.root, sink))
            if not target.separate_boot:
                # The directory may be new, or an older one was removed.
                boot = stack.enter_context(target.root.ensure_dir("boot"))
                target = dataclasses.replace(target, boot=boot)
            partitions = _BootPartitions(target)

            def keep() -> None:
                undone.keep()
                if request.cleanup and request.replace is Replace.ALONGSIDE:
                    mark_old_root(target.root)

            opened = Opened(
                target,
                keep,
                lambda: _finalize(target, skip=request.skip_finalize),
                None if request.replace is None else partitions.clear,
                _places(found),
            )
            try:
                yield opened
            except BaseException:
                if partitions.are_cleared and not undone.is_kept:
                    sink(Message("The old boot loader is removed, and the new one boots nothing"))
                    sink(Message("Run the same command again before the machine is restarted"))
                raise


def _open_target(stack: ExitStack, plan: FilesystemPlan) -> BootTarget:
    found = plan.found
    root = stack.enter_context(Dir.open(found.path))
    boot = root if found.boot is None else _entered(stack, found.boot)
    esp = None if found.esp is None else _entered(stack, found.esp, ESP_FILESYSTEM, ESP_OPTIONS)
    xbootldr = None
    if found.xbootldr is not None:
        xbootldr = _entered(stack, found.xbootldr, ESP_FILESYSTEM, ESP_OPTIONS)
    return BootTarget(
        disk=found.disk,
        root=root,
        root_uuid=found.root.uuid,
        boot=boot,
        boot_uuid=(found.boot or found.root).uuid,
        separate_boot=found.boot is not None,
        esp=esp,
        esp_uuid="" if found.esp is None else found.esp.uuid,
        esp_partition=found.esp_partition,
        xbootldr=xbootldr,
        root_kargs=plan.root_kargs,
        mirrors=tuple(_open_mirrors(stack, found)),
    )


def _open_mirrors(stack: ExitStack, found: TargetFilesystems) -> Iterator[MirrorTarget]:
    """Open the further ESPs. The machine boots without those that cannot be opened."""
    for mirror in found.mirrors:
        with ExitStack() as opening:
            try:
                esp = _entered(opening, mirror.esp, ESP_FILESYSTEM, ESP_OPTIONS)
                xbootldr = None
                if mirror.xbootldr is not None:
                    xbootldr = _entered(opening, mirror.xbootldr, ESP_FILESYSTEM, ESP_OPTIONS)
            except (Error, OSError) as exc:
                device = mirror.esp.device
                _log.warning(
                    "the EFI system partition %s is not written: %s", device, one_line(exc)
                )
                continue
            stack.enter_context(opening.pop_all())
            yield MirrorTarget(esp, mirror.esp.uuid, mirror.partition, xbootldr)


def _entered(stack: ExitStack, part: TargetMount, fstype: str = "", options: str = "") -> Dir:
    """Open a file system where it is mounted, else mount it until the stack is closed."""
    if part.path is not None:
        return stack.enter_context(Dir.open(part.path))
    fstype = fstype or filesystem_on(part.device)
    return stack.enter_context(mounts.mounted(part.device, fstype, options=options))


def _file_systems(target: BootTarget) -> Iterator[Dir]:
    yield target.root
    if target.separate_boot:
        yield target.boot
    esps = [target.xbootldr, target.esp]
    for mirror in target.mirrors:
        esps += [mirror.xbootldr, mirror.esp]
    yield from (directory for directory in esps if directory is not None)


class _BootPartitions:
    """The places of an old boot loader, with its menus and kernels."""

    __slots__ = ("_target", "are_cleared")

    def __init__(self, target: BootTarget) -> None:
        self._target = target
        self.are_cleared = False

    def clear(self) -> None:
        """Remove everything in them, and in the mirrors that are copies of the main ESP."""
        target = self._target
        self.are_cleared = True
        places = [target.boot, target.xbootldr, target.esp]
        for mirror in target.mirrors:
            if target.esp is not None and _systems(mirror.esp) <= _systems(target.esp):
                places += [mirror.xbootldr, mirror.esp]
        for directory in places:
            if directory is not None:
                clearing.remove(directory, directory.names())


def _systems(esp: Dir) -> set[str]:
    """Return the names of the systems that have programs on an ESP."""
    try:
        with esp.open_dir("EFI") as directory:
            # FAT ignores the case of letters.
            return {name.lower() for name in directory.names()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _finalize(target: BootTarget, *, skip: bool) -> None:
    for directory in _file_systems(target):
        if skip:
            directory.sync()
        else:
            finalize_filesystem(directory)


def _is_host(path: str) -> bool:
    """Tell whether a directory is on the root file system of the running system."""
    device = os.stat(path).st_dev
    for host in (_HOST, f"{_HOST}/sysroot"):
        if os.path.isdir(host) and os.stat(host).st_dev == device:
            return True
    return False


def _places(found: TargetFilesystems) -> Sequence[str]:
    root = f"        Root: {found.filesystem} {found.root.uuid} on {found.root.device}"
    others = (
        ("        Boot", found.boot),
        ("    XBOOTLDR", found.xbootldr),
        ("         ESP", found.esp),
        *(("  Mirror ESP", mirror.esp) for mirror in found.mirrors),
    )
    return (root, *(f"{name}: {part.uuid} on {part.device}" for name, part in others if part))
