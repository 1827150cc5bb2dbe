"""Tells whether an installation that was killed reached its commit point.

An installation marks its disk or its root file system as unfinished, writes the boot entry, and
removes the mark. A kill between the last two steps leaves the mark on a machine that boots.
Therefore the mark alone does not decide: this module also looks for the boot entry, with every
boot loader that an installation could have installed.

Nothing here writes to a file system or replays its journal: a boot loader does not either.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Sequence
from contextlib import ExitStack

from bootc.boot import partitions
from bootc.boot.partitions import ESP_FILESYSTEM, ESP_OPTIONS
from bootc.deploy.install.loader_installer import BootTarget, LoaderInstaller
from bootc.deploy.install.loaders import INSTALLERS
from bootc.deploy.install.partition import Partition, PartitioningFailed, find_layout
from bootc.deploy.install.target_filesystem import (
    EspNotFound,
    TargetFilesystems,
    TargetMount,
    find_filesystems,
)
from bootc.errors import doing
from bootc.formats import dps
from bootc.fs import loopback
from bootc.fs.detached import open_read_only
from bootc.fs.dir import Dir
from bootc.fs.process import CommandFailed

#: The options that keep the kernel from replaying the journal of a read-only mount.
_NO_REPLAY = {"ext4": "noload", "xfs": "norecovery", "btrfs": "rescue=nologreplay"}
#: What the kernel answers if a file system is half-written.
_NOT_A_FILESYSTEM = (errno.EINVAL, errno.EUCLEAN, errno.EBADMSG)


def disk_boots(path: str, table: Sequence[Partition], machine: str) -> bool:
    """Tell whether a disk boots that has the mark of an unfinished installation.

    Args:
        path: The disk, or the file of a disk image. Nothing uses it.
        table: Its partitions.
        machine: The architecture of this machine.

    Raises:
        Error, OSError: the disk cannot be read.
    """
    with doing(f"Looking at the unfinished installation on {path}"), ExitStack() as stack:
        target = _target_on(stack, path, tuple(table), machine)
        return target is not None and any(_boots(loader, target) for loader in INSTALLERS)


def root_boots(path: str) -> bool:
    """Tell whether a machine boots from a mounted root that is marked as unfinished.

    Args:
        path: The path of the user's request.

    Raises:
        InstallRefused: an installation to the root would be refused as well.
        Error, OSError: a file system cannot be read.
    """
    with doing(f"Looking at the unfinished installation in {path}"):
        for loader in INSTALLERS:
            try:
                found = find_filesystems(path, loader)
            except EspNotFound:
                # This loader boots nothing.
                continue
            with ExitStack() as stack:
                if _boots(loader, _target_of(stack, found)):
                    return True
    return False


def _boots(loader: LoaderInstaller, target: BootTarget) -> bool:
    return (target.esp is not None or not loader.needs_esp) and loader.boots(target)


def _target_on(
    stack: ExitStack, path: str, table: tuple[Partition, ...], machine: str
) -> BootTarget | None:
    """Open the file systems on a disk; return None if there is no root file system."""
    has_esp = any(row.type == dps.ESP for row in table)
    try:
        layout = find_layout(table, machine, with_esp=has_esp)
    except PartitioningFailed:
        return None
    root = _opened_part(stack, path, layout.root)
    if root is None:
        return None
    return BootTarget(
        disk=path,
        root=root,
        root_uuid="",
        boot=_boot_below(stack, root),
        boot_uuid="",
        esp=None if layout.esp is None else _opened_part(stack, path, layout.esp),
        esp_partition=layout.esp,
        bios_boot=layout.bios_boot,
        raw=_attached_raw(stack, path, table),
    )


def _attached_raw(
    stack: ExitStack, path: str, table: tuple[Partition, ...]
) -> dict[str, Partition]:
    """Attach the partitions without a file system that a loader would start from."""
    known = {(p.name, p.type) for loader in INSTALLERS for p in loader.raw_partitions(0)}
    found = {}
    for row in table:
        if (row.name, row.type) in known:
            part = loopback.attached(
                path, offset=row.offset_bytes, size_bytes=row.size_bytes, read_only=True
            )
            found[row.name] = dataclasses.replace(row, node=stack.enter_context(part))
    return found


def _opened_part(stack: ExitStack, path: str, row: Partition) -> Dir | None:
    """Open the file system of a partition, which the kernel need not know as one."""
    offset, size = row.offset_bytes, row.size_bytes
    part = loopback.attached(path, offset=offset, size_bytes=size, read_only=True)
    node = stack.enter_context(part)
    try:
        return _opened(stack, node, partitions.filesystem_on(node))
    except CommandFailed:
        # There is no file system yet.
        return None


def _opened(stack: ExitStack, node: str, fstype: str) -> Dir | None:
    options = ESP_OPTIONS if fstype == ESP_FILESYSTEM else _NO_REPLAY.get(fstype, "")
    try:
        return stack.enter_context(open_read_only(node, fstype, options))
    except OSError as exc:
        if exc.errno not in _NOT_A_FILESYSTEM:
            raise
        return None


def _boot_below(stack: ExitStack, root: Dir) -> Dir:
    return stack.enter_context(root.open_dir("boot")) if root.exists("boot") else root


def _target_of(stack: ExitStack, found: TargetFilesystems) -> BootTarget:
    root = stack.enter_context(Dir.open(found.path))
    boot = _boot_below(stack, root) if found.boot is None else _entered(stack, found.boot)
    return BootTarget(
        disk=found.disk,
        root=root,
        root_uuid=found.root.uuid,
        boot=boot or root,
        boot_uuid=(found.boot or found.root).uuid,
        separate_boot=found.boot is not None,
        esp=None if found.esp is None else _entered(stack, found.esp),
        esp_partition=found.esp_partition,
        xbootldr=None if found.xbootldr is None else _entered(stack, found.xbootldr),
    )


def _entered(stack: ExitStack, part: TargetMount) -> Dir | None:
    if part.path is not None:
        return stack.enter_context(Dir.open(part.path))
    return _opened(stack, part.device, partitions.filesystem_on(part.device))
