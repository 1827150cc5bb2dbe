"""The mounted file systems to install to: finding them, and checking that they may be written.

The user has mounted the root file system, and perhaps a separate ``/boot`` and the EFI system
partition below it. Otherwise the first ESP on the disks of the root is the main one, from which the
machine boots. The further ESPs on these disks are its mirrors.
Nothing here writes anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bootc.boot import partitions
from bootc.deploy.install import partition
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.loader_installer import LoaderInstaller
from bootc.deploy.install.partition import Partition
from bootc.deploy.install.request import InstallRefused
from bootc.errors import doing
from bootc.fs import lsblk, mounts
from bootc.fs.dir import Dir
from bootc.fs.mounts import Mount

#: A physical root of ostree or of bootc is below the root directory of its system.
_PHYSICAL = "sysroot"
_OSTREE = "sysroot/ostree"
_ESP_MOUNT_POINTS = ("boot/efi", "efi", "boot")
_BOOT = "boot"
_LOST_AND_FOUND = "lost+found"


class EspNotFound(InstallRefused):
    """The disks of the root have no EFI system partition, and none is mounted."""


@dataclass(frozen=True, slots=True)
class TargetMount:
    """A file system that belongs to the installation.

    Attributes:
        device: The path of its block device.
        path: Where the user mounted it; None if it is not mounted.
        uuid: Its UUID, as ``blkid`` prints it.
    """

    device: str
    path: str | None
    uuid: str


@dataclass(frozen=True, slots=True)
class TargetMirror:
    """A further EFI system partition on the disks of the root.

    Attributes:
        esp: The partition.
        partition: Its row in the partition table.
        xbootldr: The extended boot loader partition that a loader on it reads.
    """

    esp: TargetMount
    partition: Partition
    xbootldr: TargetMount | None


@dataclass(frozen=True, slots=True)
class TargetFilesystems:
    """The file systems of an installation.

    Attributes:
        path: The physical root.
        filesystem: Its type.
        root: Its file system.
        subvolume: The directory of the file system that is mounted there.
        disk: The disk, or the first of several.
        boot: A separate ``/boot`` that is neither ESP nor XBOOTLDR for its loader.
        esp: The main EFI system partition, if the boot loader needs one.
        esp_partition: Its row in the partition table.
        xbootldr: The extended boot loader partition, if the boot loader reads it.
        mirrors: The further EFI system partitions.
    """

    path: str
    filesystem: Filesystem
    root: TargetMount
    subvolume: str
    disk: str
    boot: TargetMount | None = None
    esp: TargetMount | None = None
    esp_partition: Partition | None = None
    xbootldr: TargetMount | None = None
    mirrors: tuple[TargetMirror, ...] = ()

    @property
    def mounts(self) -> Iterator[str]:
        """Where the user mounted the file systems other than the root."""
        others = (part for mirror in self.mirrors for part in (mirror.esp, mirror.xbootldr))
        for part in (self.boot, self.esp, self.xbootldr, *others):
            if part is not None and part.path is not None:
                yield part.path


def find_filesystems(path: str, loader: LoaderInstaller) -> TargetFilesystems:
    """Find the file systems to install to.

    Args:
        path: The mount point of the root file system, or the root directory of a system.
        loader: The boot loader.

    Raises:
        EspNotFound: the ESP that the loader needs is missing.
        InstallRefused: the path is no mount point, or something is mounted read-only.
        UnknownFilesystem: bootc cannot use the root file system.
        Error, OSError: the mounts or the disks cannot be read.
    """
    if not os.path.isdir(path):
        raise InstallRefused(f"Not a directory: {path}")
    logical = os.path.realpath(path)
    is_system = os.path.isdir(os.path.join(logical, _OSTREE))
    physical = os.path.join(logical, _PHYSICAL) if is_system else logical
    with ExitStack() as stack:
        root_dir = stack.enter_context(Dir.open(physical))
        entry = _mount_at(root_dir)
        if entry is None:
            raise InstallRefused(
                f"Not a mountpoint: {physical}",
                hint="mount the root file system there; for a directory of one: mount --bind",
            )
        kind = Filesystem.named(entry.fstype)
        _require_writable(root_dir)
        device = partitions.backing_device(root_dir)
        found = TargetFilesystems(
            path=physical,
            filesystem=kind,
            root=TargetMount(device, physical, partitions.filesystem_uuid(device)),
            subvolume=entry.root,
            disk=_disk_of(device),
        )
        return _with_boot(stack, found, logical, loader)


def _with_boot(
    stack: ExitStack, found: TargetFilesystems, logical: str, loader: LoaderInstaller
) -> TargetFilesystems:
    """Add the partitions that the machine boots from."""
    esp = _find_esp(stack, found, logical) if loader.needs_esp else None
    xbootldr = None if esp is None else _xbootldr_beside(esp)
    boot = _separate_boot(stack, found, logical)
    others = {part.device for part in (esp, xbootldr) if part is not None}
    return TargetFilesystems(
        found.path,
        found.filesystem,
        found.root,
        found.subvolume,
        found.disk,
        boot=None if boot is None or boot.device in others else boot,
        esp=esp,
        esp_partition=None if esp is None else _partition_of(esp.device),
        xbootldr=xbootldr,
        mirrors=() if esp is None else tuple(_mirrors(found, esp)),
    )


def _xbootldr_beside(esp: TargetMount) -> TargetMount | None:
    device = partitions.find_xbootldr_beside(esp.device)
    return None if device is None else _target_mount(device)


def _mirrors(found: TargetFilesystems, main: TargetMount) -> Iterator[TargetMirror]:
    for device in partitions.find_mirrors(found.root.device, main.device):
        esp = _target_mount(device)
        yield TargetMirror(esp, _partition_of(device), _xbootldr_beside(esp))


def _target_mount(device: str) -> TargetMount:
    return TargetMount(device, _path_of(device), partitions.filesystem_uuid(device))


def _find_esp(stack: ExitStack, found: TargetFilesystems, logical: str) -> TargetMount:
    for name in _ESP_MOUNT_POINTS:
        for above in dict.fromkeys((found.path, logical)):
            path = os.path.join(above, name)
            mounted = _mounted_directory(stack, path)
            if mounted is not None and mounted[1].fstype == partitions.ESP_FILESYSTEM:
                _require_writable(mounted[0])
                device = partitions.backing_device(mounted[0])
                return TargetMount(device, path, partitions.filesystem_uuid(device))
    first = partitions.find_esp(found.root.device)
    if first is None:
        here = os.path.join(logical, _ESP_MOUNT_POINTS[0])
        raise EspNotFound(
            "ESP partition not found",
            hint=f"make a partition of the type EFI System on {found.disk}, or mount the one to "
            f"use at {here}",
        )
    return TargetMount(first, None, partitions.filesystem_uuid(first))


def _separate_boot(stack: ExitStack, found: TargetFilesystems, logical: str) -> TargetMount | None:
    for above in dict.fromkeys((found.path, logical)):
        path = os.path.join(above, _BOOT)
        mounted = _mounted_directory(stack, path)
        if mounted is not None:
            _require_writable(mounted[0])
            device = partitions.backing_device(mounted[0])
            return TargetMount(device, path, partitions.filesystem_uuid(device))
    return None


def _mounted_directory(stack: ExitStack, path: str) -> tuple[Dir, Mount] | None:
    if not os.path.isdir(path) or os.path.islink(path):
        return None
    directory = stack.enter_context(Dir.open(path))
    entry = _mount_at(directory)
    return None if entry is None else (directory, entry)


def _mount_at(directory: Dir) -> Mount | None:
    """Return the mount whose mount point a directory is."""
    entry = mounts.mount_of(directory)
    if entry is None or entry.path != os.readlink(f"/proc/self/fd/{directory.fileno()}"):
        return None
    return entry


def _require_writable(directory: Dir) -> None:
    if os.statvfs(directory.fileno()).f_flag & os.ST_RDONLY:
        raise InstallRefused(
            f"{directory.path} is mounted read-only",
            hint=f"mount -o remount,rw {directory.path}",
        )


def _path_of(device: str) -> str | None:
    number = os.stat(device).st_rdev
    wanted = f"{os.major(number)}:{os.minor(number)}"
    return next((entry.path for entry in mounts.read_mounts() if entry.device == wanted), None)


def _disk_of(device: str) -> str:
    with doing(f"Looking for the disk of {device}"):
        return next(block.path for block in lsblk.below(device) if block.is_last)


def _partition_of(device: str) -> Partition:
    """Return the row of a partition, or one without details for a device that is no partition."""
    disk = _disk_of(device)
    if disk != device:
        for row in partition.read_table(disk):
            if os.path.realpath(row.node) == os.path.realpath(device):
                return row
    return Partition(device, "", 0)


def check_empty(found: TargetFilesystems, ours: Sequence[str]) -> None:
    """Check that the root file system is empty, except for directories of mount points.

    Args:
        found: The file systems.
        ours: Names in it that an unfinished installation left.

    Raises:
        InstallRefused: it is not empty.
    """
    with Dir.open(found.path) as root:
        device = os.fstat(root.fileno()).st_dev
        for name in root.names():
            if name in (_LOST_AND_FOUND, *ours):
                continue
            if not _holds_only_mount_points(os.path.join(found.path, name), device):
                raise InstallRefused(
                    f"Non-empty root filesystem; found {name!r:.80}",
                    hint="empty it, or give --replace alongside or --replace wipe",
                )


def check_no_other_mounts(found: TargetFilesystems) -> None:
    """Check that nothing is mounted below the root but the file systems of the installation.

    Raises:
        InstallRefused: something is.
    """
    expected = {os.path.realpath(path) for path in found.mounts}
    for entry in mounts.read_mounts():
        if entry.path.startswith(f"{found.path}/") and entry.path not in expected:
            raise InstallRefused(
                f"Found unexpected mount point {entry.path}",
                hint=f"unmount it first; --replace wipe removes everything in {found.path}",
            )


def _holds_only_mount_points(path: str, device: int) -> bool:
    pending = [path]
    while pending:
        path = pending.pop()
        info = os.lstat(path)
        if info.st_dev != device:
            continue
        names = os.listdir(path) if os.path.isdir(path) and not os.path.islink(path) else []
        if not names:
            # An empty directory is a mount point without a mount; a file is content.
            return False
        pending += [os.path.join(path, name) for name in names]
    return True
