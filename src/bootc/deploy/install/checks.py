"""The decisions and checks that all installations share, before anything is written.

:func:`decide` checks the request and the configuration, :func:`check_kernel` the running kernel,
and :func:`check_platform` the image. None of them writes anything. Cheap checks come first, and
checks of the user's input come before checks of the machine. The checks of a disk are in
``checks_disk.py``, those of mounted file systems in ``target_filesystem.py``.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bootc.boot.kernel_release import KernelTooOld, check_running_kernel
from bootc.boot.partitions import ESP_FILESYSTEM
from bootc.deploy.install import loaders
from bootc.deploy.install.config import STATEROOT, InstallConfig
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.loader_installer import LoaderInstaller
from bootc.deploy.install.partition import MIB
from bootc.deploy.install.request import InstallRefused, InstallRequest
from bootc.deploy.install.root_keys import read_keys
from bootc.formats import cmdline, ocispec
from bootc.formats.cmdline import CmdlineError
from bootc.formats.origin import Signature
from bootc.fs import process
from bootc.kernel import fsverity, mount
from bootc.oci.pull import required_bytes
from bootc.oci.source import Source

#: The file systems that an installation mounts besides the root and the ESP.
_FILESYSTEMS = ("erofs", "overlay", "tmpfs")
#: Space that no layer accounts for: inodes and journal, the image itself, /etc and /var.
SLACK_MIB = 256


@dataclass(frozen=True, slots=True)
class Decisions:
    """The choices that follow from request, configuration and machine.

    Attributes:
        machine: The architecture, as ``uname -m`` prints it.
        loader: The boot loader to install.
        filesystem: The type of the root file system.
        allow_missing_verity: Tolerate objects without fs-verity, now and at each boot.
        kargs: The kernel arguments of configuration and user.
        karg_deletes: Kernel arguments of the image and of the installer to leave out.
        root_keys: The SSH keys of root, or None.
        signature: The demand for signatures, or None.
        skip_boot_uuid: bootupd does not write the UUID of the file system with ``boot``.
    """

    machine: str
    loader: LoaderInstaller
    filesystem: Filesystem
    allow_missing_verity: bool
    kargs: tuple[str, ...]
    karg_deletes: tuple[str, ...] = ()
    root_keys: bytes | None = None
    signature: Signature | None = None
    skip_boot_uuid: bool = False


def require_root() -> None:
    """Check that root runs this process.

    Raises:
        InstallRefused: somebody else does.
    """
    if os.geteuid() != 0:
        raise InstallRefused("This command must be executed as the root user")


def decide(
    request: InstallRequest, config: InstallConfig, machine: str, root_fs: Filesystem
) -> Decisions:
    """Decide how to install.

    Args:
        request: The user's request.
        config: The install configuration.
        machine: The architecture of this machine, as ``uname -m`` prints it.
        root_fs: The type of the root file system.

    Raises:
        InstallRefused: the request cannot be met.
        OSError: the file of keys cannot be read.
    """
    loader = loaders.choose_loader(request, config)
    _check_stateroot(request.stateroot or config.stateroot)
    kargs = (*config.kargs, *request.kargs)
    _check_kargs(kargs)
    loader.check_kernel_arguments(kargs)
    karg_deletes = (*config.karg_deletes, *request.karg_deletes)
    _check_kargs(karg_deletes)
    keys_file = request.root_keys_file
    enforce = request.enforce_sigpolicy or config.enforce_sigpolicy
    configured = cmdline.without(cmdline.parse(cmdline.join(config.kargs)), karg_deletes)
    return Decisions(
        machine=machine,
        loader=loader,
        filesystem=root_fs,
        allow_missing_verity=request.allow_missing_verity or not root_fs.supports_verity,
        kargs=(*configured, *request.kargs),
        karg_deletes=karg_deletes,
        root_keys=None if keys_file is None else read_keys(keys_file),
        signature=Signature() if enforce else None,
        skip_boot_uuid=request.bootupd_skip_boot_uuid or config.bootupd_skip_boot_uuid,
    )


def check_machine(decisions: Decisions) -> None:
    """Check that the boot loader starts machines of this architecture.

    Raises:
        InstallRefused: it does not.
    """
    if decisions.machine not in decisions.loader.machines:
        raise InstallRefused(
            f"{decisions.loader.title} does not start a machine of architecture {decisions.machine}"
        )


def check_tools(names: Iterable[str]) -> None:
    """Check that programs are installed.

    Raises:
        ToolMissing: one is not.
    """
    for name in names:
        process.find_tool(name)


def check_platform(decisions: Decisions, source: Source) -> None:
    """Check that the image is well-formed and is for this machine.

    Raises:
        ImageSpecError: manifest or configuration are malformed.
        WrongArchitecture: the image is for other machines.
    """
    ocispec.Manifest.parse(source.manifest_raw)
    image = ocispec.ImageConfig.parse(source.config_raw)
    image.check_platform(ocispec.go_architecture(decisions.machine))


def needed_mib(source: Source) -> int:
    """Return the least space that an image needs in the root file system, in MiB."""
    return -(-required_bytes(source) // MIB) + SLACK_MIB


def check_kernel(decisions: Decisions) -> None:
    """Check that the running kernel can mount an image from the new root file system.

    Raises:
        InstallRefused: it is too old, or lacks a file system or fs-verity.
    """
    try:
        check_running_kernel()
    except KernelTooOld as exc:
        raise InstallRefused(exc.message, hint=exc.hint) from None
    esp = (ESP_FILESYSTEM,) if decisions.loader.needs_esp else ()
    for name in (decisions.filesystem.value, *esp, *_FILESYSTEMS):
        _check_filesystem(name)
    if decisions.allow_missing_verity:
        return
    # Opening a context loads the module, which shows whether the kernel has fs-verity.
    with contextlib.suppress(OSError):
        os.close(mount.fsopen(Filesystem.EXT4.value))
    if fsverity.is_in_kernel() is False:
        raise InstallRefused(
            "the running kernel has no fs-verity",
            hint="install from a system that has it, or use --allow-missing-verity",
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


def _check_filesystem(name: str) -> None:
    try:
        # Opening a context loads the kernel's module.
        os.close(mount.fsopen(name))
    except OSError as exc:
        if exc.errno != errno.ENODEV:
            raise
        raise InstallRefused(f"the running kernel cannot mount {name}") from None
