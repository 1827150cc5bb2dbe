"""The decisions and checks of an installation to a whole disk, before the disk is touched."""

from __future__ import annotations

from dataclasses import dataclass

from bootc.boot.esp_size import default_esp_size_mib
from bootc.deploy.install import checks, filesystem, loaders, partition, target_disk
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.config import InstallConfig
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.loader_installer import LoaderInstaller
from bootc.deploy.install.partition import MIB, DiskSizes
from bootc.deploy.install.request import DiskRequest, InstallRefused
from bootc.deploy.install.target_disk import Device

BLOCK_SETUP = "direct"
_TOOLS = ("blkid", "lsblk", "partx", "sfdisk", "wipefs")


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """What happens to the disk.

    Attributes:
        decisions: The choices that all installations have.
        device: The disk.
        sizes: The sizes of the partitions.
        wipe: Whether data on it is overwritten.
        discoverable: Whether the machine finds its root partition by the partition's type.
    """

    decisions: Decisions
    device: Device
    sizes: DiskSizes
    wipe: bool = False
    discoverable: bool = False

    def check_room(self, needed_mib: int) -> None:
        """Check that the root file system will have this size.

        Raises:
            InstallRefused: it is smaller.
        """
        if self.sizes.root_mib is not None:
            what, have_mib = "the root partition", self.sizes.root_mib
        else:
            what, have_mib = self.device.path, self.device.size_bytes // MIB
            needed_mib += partition.fixed_size_mib(self.decisions.machine, self.sizes)
        if have_mib < needed_mib:
            raise InstallRefused(
                f"{what} is too small for the image: it has {have_mib} MiB, "
                f"at least {needed_mib} MiB are needed",
                hint="use a larger disk"
                if self.sizes.root_mib is None
                else f"give --root-size {needed_mib}M or more, or leave it out",
            )


def check_disk(
    request: DiskRequest, config: InstallConfig | None, machine: str
) -> tuple[Device, bool]:
    """Check what does not depend on the boot loader, and return the disk.

    Returns:
        The disk, and whether it has an unfinished installation.

    Raises:
        InstallRefused: the request cannot be met, or the disk must not be written.
        UnknownFilesystem: the type of the root file system is unknown.
        ToolMissing: a program is not installed.
    """
    checks.require_root()
    root_fs = _choose_filesystem(request, config)
    _choose_block_setup(request, config or InstallConfig())
    checks.check_tools((*_TOOLS, root_fs.tool))
    inspect = target_disk.inspect_file if request.via_loopback else target_disk.inspect
    disk = inspect(request.device)
    return disk, target_disk.check_may_be_written(disk, wipe=request.wipe, machine=machine)


def plan_disk(request: DiskRequest, config: InstallConfig | None, machine: str) -> DiskPlan:
    """Decide how to install to a disk, and check that this machine can.

    Args:
        request: The user's request.
        config: The install configuration; None if there is no file.
        machine: The architecture of this machine, as ``uname -m`` prints it.

    Raises:
        InstallRefused: the request cannot be met, or the disk must not be written.
        UnknownFilesystem: the type of the root file system is unknown.
        UnsupportedMachine: there is no partition layout for this machine.
        ToolMissing: a program is not installed.
    """
    checks.require_root()
    known = config or InstallConfig()
    root_fs = _choose_filesystem(request, config)
    _choose_block_setup(request, known)
    decisions = checks.decide(request, known, machine, root_fs)
    loader = decisions.loader
    partition.require_layout(machine)
    checks.check_machine(decisions)
    esp_tools = (filesystem.ESP_TOOL,) if loader.needs_esp else ()
    checks.check_tools((*loader.tools, *esp_tools))
    disk, unfinished = check_disk(request, config, machine)
    sizes = DiskSizes(
        root_mib=request.root_size_mib,
        esp_mib=_esp_size_mib(loader, disk, known) if loader.needs_esp else None,
        raw=loader.raw_partitions(disk.size_bytes // MIB),
    )
    _check_size(disk, partition.fixed_size_mib(machine, sizes), request.root_size_mib)
    checks.check_kernel(decisions)
    return DiskPlan(
        decisions=decisions,
        device=disk,
        wipe=request.wipe or unfinished,
        discoverable=loaders.finds_root_by_type(loader, request, known),
        sizes=sizes,
    )


def _choose_filesystem(request: DiskRequest, config: InstallConfig | None) -> Filesystem:
    if request.filesystem is None and config is None:
        raise InstallRefused(
            "No install configuration found, and no filesystem specified",
            hint="name one with --filesystem",
        )
    name = request.filesystem or (config.root_fs_type if config else None)
    if name is None:
        raise InstallRefused("No root filesystem specified", hint="name one with --filesystem")
    return Filesystem.named(name)


def _choose_block_setup(request: DiskRequest, config: InstallConfig) -> None:
    asked = request.block_setup or config.block[0]
    if asked not in config.block:
        raise InstallRefused(
            f"Block setup {asked} is not enabled in installation config",
            hint=f"it allows {', '.join(config.block)}: add the name to install.block",
        )
    if asked != BLOCK_SETUP:
        raise InstallRefused(
            f"block setup {asked} is not supported yet by this version",
            hint=f"use --block-setup {BLOCK_SETUP}",
        )


def _esp_size_mib(loader: LoaderInstaller, disk: Device, config: InstallConfig) -> int:
    if config.esp_size_mib is not None:
        return config.esp_size_mib
    if not loader.kernels_on_esp:
        return partition.SMALL_ESP_SIZE_MIB
    return default_esp_size_mib(disk.size_bytes // MIB)


def _check_size(disk: Device, fixed_size_mib: int, root_size_mib: int | None) -> None:
    needed_mib = fixed_size_mib + (checks.SLACK_MIB if root_size_mib is None else root_size_mib)
    have_mib = disk.size_bytes // MIB
    if have_mib < needed_mib:
        raise InstallRefused(
            f"{disk.path} is too small: it has {have_mib} MiB, "
            f"at least {needed_mib} MiB are needed",
            hint="use a larger disk, or a smaller esp-size in the install configuration"
            if root_size_mib is None
            else "use a larger disk, or a smaller --root-size",
        )
