"""The checks before an installation touches the disk.

There are two, because the image's source is opened in between: :func:`check_host` checks the
request, the configuration, the tools, the kernel and the disk; :func:`check_image` checks the
image. Neither writes anything, so an error leaves the disk unchanged. Cheap checks come
first, and checks of the user's input come before checks of the machine.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass

from bootc.boot.kernel_release import KernelTooOld, check_running_kernel
from bootc.boot.partitions import ESP_FILESYSTEM
from bootc.deploy.install import filesystem, loaders, partition, target_disk
from bootc.deploy.install.config import STATEROOT, InstallConfig
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.loader_installer import LoaderInstaller
from bootc.deploy.install.partition import MIB
from bootc.deploy.install.request import InstallRefused, InstallRequest
from bootc.deploy.install.root_keys import read_keys
from bootc.deploy.install.target_disk import Device
from bootc.formats import cmdline, ocispec
from bootc.formats.cmdline import CmdlineError
from bootc.formats.origin import Signature
from bootc.fs import process
from bootc.kernel import mount

BLOCK_SETUP = "direct"
_TOOLS = ("lsblk", "partx", "sfdisk", "wipefs")
#: The file systems that an installation mounts besides the root and the ESP.
_FILESYSTEMS = ("erofs", "overlay", "tmpfs")
#: Space that no layer accounts for: inodes and journal, the image itself, /etc and /var.
_SLACK_MIB = 256


@dataclass(frozen=True, slots=True)
class Decisions:
    """The choices that follow from request, configuration and machine.

    ``esp_size_mib`` is None if the disk gets no EFI system partition.
    """

    device: Device
    machine: str
    loader: LoaderInstaller
    filesystem: Filesystem
    discoverable: bool
    allow_missing_verity: bool
    root_size_mib: int | None
    kargs: tuple[str, ...]
    karg_deletes: tuple[str, ...] = ()
    root_keys: bytes | None = None
    signature: Signature | None = None
    esp_size_mib: int | None = partition.ESP_SIZE_MIB


def check_host(request: InstallRequest, config: InstallConfig | None, machine: str) -> Decisions:
    """Decide how to install, and check that this machine can.

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
    if os.geteuid() != 0:
        raise InstallRefused("This command must be executed as the root user")
    known = config or InstallConfig()
    root_fs = _choose_filesystem(request, config)
    loader = loaders.choose_loader(request, known)
    _choose_block_setup(request, known)
    _check_stateroot(request.stateroot or known.stateroot)
    _check_kargs((*known.kargs, *request.kargs))
    karg_deletes = (*known.karg_deletes, *request.karg_deletes)
    _check_kargs(karg_deletes)
    keys_file = request.root_keys_file
    root_keys = None if keys_file is None else read_keys(keys_file)
    partition.require_layout(machine)
    esp_tools = (filesystem.ESP_TOOL,) if loader.needs_esp else ()
    for tool in (*loader.tools, *_TOOLS, *esp_tools, root_fs.tool):
        process.find_tool(tool)
    disk = target_disk.inspect(request.device)
    target_disk.check_may_be_written(disk, wipe=request.wipe)
    esp_size_mib = _esp_size_mib(disk, known) if loader.needs_esp else None
    fixed_size_mib = partition.fixed_size_mib(machine, esp_size_mib)
    _check_size(disk, fixed_size_mib, request.root_size_mib)
    enforce = request.enforce_sigpolicy or known.enforce_sigpolicy
    decisions = Decisions(
        device=disk,
        machine=machine,
        loader=loader,
        filesystem=root_fs,
        discoverable=loaders.finds_root_by_type(loader, request, known),
        allow_missing_verity=request.allow_missing_verity or not root_fs.supports_verity,
        root_size_mib=request.root_size_mib,
        kargs=(
            *cmdline.without(cmdline.parse(cmdline.join(known.kargs)), karg_deletes),
            *request.kargs,
        ),
        karg_deletes=karg_deletes,
        root_keys=root_keys,
        signature=Signature() if enforce else None,
        esp_size_mib=esp_size_mib,
    )
    _check_kernel(decisions)
    return decisions


def check_image(
    decisions: Decisions, manifest_raw: bytes, config_raw: bytes, required_bytes: int
) -> None:
    """Check that the image is well-formed, is for this machine, and fits on the disk.

    Raises:
        ImageSpecError: manifest or configuration are malformed.
        WrongArchitecture: the image is for other machines.
        InstallRefused: it does not fit.
    """
    ocispec.Manifest.parse(manifest_raw)
    image = ocispec.ImageConfig.parse(config_raw)
    image.check_platform(ocispec.go_architecture(decisions.machine))
    needed_mib = -(-required_bytes // MIB) + _SLACK_MIB
    if decisions.root_size_mib is not None:
        what, have_mib = "the root partition", decisions.root_size_mib
    else:
        what, have_mib = f"{decisions.device.path}", decisions.device.size_bytes // MIB
        needed_mib += partition.fixed_size_mib(decisions.machine, decisions.esp_size_mib)
    if have_mib < needed_mib:
        raise InstallRefused(
            f"{what} is too small for the image: it has {have_mib} MiB, "
            f"at least {needed_mib} MiB are needed"
        )


def _choose_filesystem(request: InstallRequest, config: InstallConfig | None) -> Filesystem:
    if request.filesystem is None and config is None:
        raise InstallRefused(
            "No install configuration found, and no filesystem specified",
            hint="name one with --filesystem",
        )
    name = request.filesystem or (config.root_fs_type if config else None)
    if name is None:
        raise InstallRefused("No root filesystem specified", hint="name one with --filesystem")
    return Filesystem.named(name)


def _choose_block_setup(request: InstallRequest, config: InstallConfig) -> None:
    asked = request.block_setup or config.block[0]
    if asked not in config.block:
        raise InstallRefused(f"Block setup {asked} is not enabled in installation config")
    if asked != BLOCK_SETUP:
        raise InstallRefused(
            f"block setup {asked} is not supported yet by this version",
            hint=f"use --block-setup {BLOCK_SETUP}",
        )


def _check_stateroot(name: str | None) -> None:
    if name not in (None, STATEROOT):
        raise InstallRefused(
            f"stateroot {name!r:.80} is not supported with the composefs backend, "
            f"which has the one stateroot {STATEROOT!r}",
            hint="leave out --stateroot, and stateroot in the install configuration",
        )


def _check_kargs(kargs: Sequence[str]) -> None:
    try:
        for text in kargs:
            cmdline.check(text)
        cmdline.check_length(cmdline.join(kargs))
    except CmdlineError as exc:
        raise InstallRefused(exc.message, hint=exc.hint) from None


def _esp_size_mib(disk: Device, config: InstallConfig) -> int:
    return config.esp_size_mib or partition.default_esp_size_mib(disk.size_bytes // MIB)


def _check_size(disk: Device, fixed_size_mib: int, root_size_mib: int | None) -> None:
    needed_mib = fixed_size_mib + (_SLACK_MIB if root_size_mib is None else root_size_mib)
    have_mib = disk.size_bytes // MIB
    if have_mib < needed_mib:
        raise InstallRefused(
            f"{disk.path} is too small: it has {have_mib} MiB, at least {needed_mib} MiB are needed"
        )


def _check_kernel(decisions: Decisions) -> None:
    try:
        check_running_kernel()
    except KernelTooOld as exc:
        raise InstallRefused(exc.message, hint=exc.hint) from None
    esp = (ESP_FILESYSTEM,) if decisions.loader.needs_esp else ()
    for name in (decisions.filesystem.value, *esp, *_FILESYSTEMS):
        _check_filesystem(name)
    if decisions.allow_missing_verity:
        return
    # The kernel has one fs-verity switch for all file systems, and ext4 shows it.
    with contextlib.suppress(OSError):
        os.close(mount.fsopen(Filesystem.EXT4.value))
    features = "/sys/fs/ext4/features"
    if os.path.exists(features) and not os.path.exists(f"{features}/verity"):
        raise InstallRefused(
            "the running kernel has no fs-verity",
            hint="install from a system that has it, or use --allow-missing-verity",
        )


def _check_filesystem(name: str) -> None:
    try:
        # Opening a context loads the kernel's module.
        os.close(mount.fsopen(name))
    except OSError as exc:
        if exc.errno != errno.ENODEV:
            raise
        raise InstallRefused(f"the running kernel cannot mount {name}") from None
