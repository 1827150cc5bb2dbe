"""``bootc install to-disk``: makes partitions and file systems on a disk, and installs to them.

Promises:

- From the first write to the boot entry, a failure or an interruption unmounts everything and
  wipes the disk's signatures again, so the next run finds a blank disk and not half an
  installation.
- If the process is killed, the kernel unmounts everything and detaches the loop devices. The name
  of the root partition then says that the installation is unfinished. The next run overwrites it
  without ``--wipe``, unless it boots: then only the new name of the partition was missing.

The disk may be a file, the image of a disk for another machine. Its partitions are loop devices
of parts of the file, because neither the kernel nor udev may scan a loop device for partitions.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from bootc.boot.partitions import ESP_FILESYSTEM, ESP_OPTIONS, filesystem_uuid
from bootc.deploy.install import checks_disk, filesystem, partition, running_image, target_disk
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.checks_disk import DiskPlan, check_disk, plan_disk
from bootc.deploy.install.config import InstallConfig, read_config
from bootc.deploy.install.finalize import finalize_filesystem
from bootc.deploy.install.installation import Opened, choose_by_image, install
from bootc.deploy.install.loader_installer import BootTarget
from bootc.deploy.install.partition import Partition, TargetPartitions
from bootc.deploy.install.request import DiskRequest, Installed
from bootc.deploy.install.target_disk import BlankUnlessKept
from bootc.errors import Error, one_line
from bootc.events import Message, Sink, stage
from bootc.fs import loopback, mounts

_log = logging.getLogger(__name__)

_UNKNOWN = "<unknown>"


def install_to_disk(request: DiskRequest, sink: Sink) -> Installed | None:
    """Partition a disk, install an image to it, and make it boot; return None after a dry run.

    Raises:
        InstallRefused: the request cannot be met. The disk is unchanged.
        Error, OSError: the installation failed. The disk is blank, unless the boot entry was
            written already.
    """
    if request.from_container:
        mounts.private_mount_namespace()
        running_image.mount_host_directories(request.source)
    if request.via_loopback and not request.generic_image:
        sink(Message("notice: --via-loopback implies --generic-image"))
        request = dataclasses.replace(request, generic_image=True)
    machine = os.uname().machine
    config = read_config(machine)
    check_disk(request, config, machine)
    request = choose_by_image(request, config or InstallConfig(), machine)
    plan = plan_disk(request, config, machine)
    return install(request, DiskDestination(plan), sink)


class DiskDestination:
    """A disk, as the destination of an installation.

    The methods are those of :class:`~bootc.deploy.install.installation.Destination`.
    """

    __slots__ = ("_plan",)

    def __init__(self, plan: DiskPlan) -> None:
        self._plan = plan

    @property
    def decisions(self) -> Decisions:
        """The choices that all installations have."""
        return self._plan.decisions

    @property
    def facts(self) -> Sequence[str]:
        """Lines of upstream's installer."""
        disk = self._plan.device
        return (
            f"Block setup: {checks_disk.BLOCK_SETUP}",
            f"       Size: {disk.size_bytes}",
            f"     Serial: {disk.serial or _UNKNOWN}",
            f"      Model: {disk.model or _UNKNOWN}",
            f" Partitions: {'Discoverable' if self._plan.discoverable else 'UUID'}",
        )

    @property
    def steps(self) -> Sequence[str]:
        """The steps up to the mounted file systems."""
        plan, path = self._plan, self._plan.device.path
        sizes = plan.sizes
        root_size = "the rest" if sizes.root_mib is None else f"{sizes.root_mib} MiB"
        esp = [] if sizes.esp_mib is None else [f"EFI-SYSTEM {sizes.esp_mib} MiB"]
        raw = [f"{part.name} {part.size_mib} MiB" for part in sizes.raw]
        table = ", ".join([*esp, *raw, f"root {root_size}"])
        formats = [f"{plan.decisions.filesystem} on root"]
        return (
            *([f"Wipe {path}"] if plan.wipe else []),
            f"Write a GPT to {path}: {table}",
            f"Create {' and '.join([*(['FAT on EFI-SYSTEM'] if esp else []), *formats])}",
        )

    def check_room(self, needed_mib: int) -> None:
        """Check the size that the root partition will have."""
        self._plan.check_room(needed_mib)

    @contextmanager
    def opened(self, sink: Sink) -> Iterator[Opened]:
        """Make the partitions and file systems, and mount them."""
        plan, device = self._plan, self._plan.device
        if plan.wipe:
            sink(Message(f"Wiping device {device.path}"))
            target_disk.wipe(device)
        with BlankUnlessKept(device, sink) as disk, ExitStack() as stack:
            with stage(sink, "partition", f"Partitioning {device.path}"):
                node, layout = _partitioned(stack, plan)
            with stage(sink, "format", f"Creating {self.decisions.filesystem} on {device.path}"):
                root_uuid = filesystem.make_root(self.decisions.filesystem, layout.root.node)
                if layout.esp is not None:
                    filesystem.make_esp(layout.esp.node, layout.esp.sectors)
            target = _mounted(stack, plan, node, layout, root_uuid)

            def keep() -> None:
                disk.keep()
                _name_root(device.path, layout.root)

            yield Opened(target, keep, lambda: _finalize(target), places=_places(plan, target))


def _partitioned(stack: ExitStack, plan: DiskPlan) -> tuple[str, TargetPartitions]:
    """Return the node of the disk, and its new partitions with their nodes."""
    path, machine = plan.device.path, plan.decisions.machine
    if not plan.device.is_file:
        return path, partition.create_partitions(path, machine, plan.sizes)
    layout = partition.create_table(path, machine, plan.sizes)

    def node_of(part: Partition) -> Partition:
        node = loopback.attached(path, offset=part.offset_bytes, size_bytes=part.size_bytes)
        return dataclasses.replace(part, node=stack.enter_context(node))

    root = node_of(layout.root)
    disk = stack.enter_context(loopback.attached(path))
    return disk, TargetPartitions(
        root,
        None if layout.esp is None else node_of(layout.esp),
        None if layout.bios_boot is None else node_of(layout.bios_boot),
        {name: node_of(part) for name, part in layout.raw.items()},
    )


def _mounted(
    stack: ExitStack, plan: DiskPlan, disk: str, layout: TargetPartitions, root_uuid: uuid.UUID
) -> BootTarget:
    fstype = plan.decisions.filesystem.value
    root = stack.enter_context(mounts.mounted(layout.root.node, fstype))
    esp, esp_uuid = None, ""
    if layout.esp is not None:
        esp_uuid = filesystem_uuid(layout.esp.node)
        esp = stack.enter_context(
            mounts.mounted(layout.esp.node, ESP_FILESYSTEM, options=ESP_OPTIONS)
        )
    return BootTarget(
        disk=disk,
        root=root,
        root_uuid=str(root_uuid),
        boot=stack.enter_context(root.ensure_dir("boot")),
        boot_uuid=str(root_uuid),
        root_kargs=("rw",) if plan.discoverable else (f"root=UUID={root_uuid}", "rw"),
        esp=esp,
        esp_uuid=esp_uuid,
        esp_partition=layout.esp,
        bios_boot=layout.bios_boot,
        disk_is_file=plan.device.is_file,
        esp_is_new=True,
        raw=layout.raw,
    )


def _name_root(path: str, root: Partition) -> None:
    try:
        partition.mark_finished(path, root)
    except Error as exc:
        # The disk boots, which the next installation sees.
        _log.warning("the root partition keeps its name: %s", one_line(exc))


def _finalize(target: BootTarget) -> None:
    finalize_filesystem(target.root)
    if target.esp is not None:
        finalize_filesystem(target.esp)


def _places(plan: DiskPlan, target: BootTarget) -> Sequence[str]:
    path = plan.device.path
    lines = [f"        Root: {plan.decisions.filesystem} {target.root_uuid} on {path}"]
    if target.esp_partition is not None:
        lines.append(f"         ESP: {target.esp_partition.uuid} on {path}")
    return lines
