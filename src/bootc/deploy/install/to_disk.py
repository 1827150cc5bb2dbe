"""``bootc install to-disk``: from a disk and an image reference to a machine that boots.

Read top to bottom, this is the whole installation. ``checks`` and ``checks_image`` check
everything that can be checked before the disk is touched. From the partition table on, a
failure or an interruption unmounts everything and wipes the disk's signatures again, so the
next run finds a blank disk and not half an installation. The commit point is the boot entry,
the last file that ``deploy_image`` writes: a later failure is reported, but the disk boots
and is left alone.

The process remains in a mount namespace of its own.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from bootc.boot.partitions import ESP_FILESYSTEM, ESP_OPTIONS
from bootc.deploy.bootable import note_label
from bootc.deploy.install import checks, filesystem, running_image, target_disk
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.checks_image import check_last_layer
from bootc.deploy.install.config import read_config
from bootc.deploy.install.deploy_image import deploy_image
from bootc.deploy.install.loader_installer import BootTarget
from bootc.deploy.install.partition import TargetPartitions, create_partitions
from bootc.deploy.install.request import Installed, InstallRequest
from bootc.deploy.install.target_disk import BlankUnlessKept
from bootc.errors import Error, doing
from bootc.events import Message, Sink, stage
from bootc.fs import mounts, process
from bootc.fs.dir import Dir
from bootc.kernel import mount
from bootc.oci import sigpolicy
from bootc.oci.pull import Pulled, required_bytes
from bootc.oci.source import Source, open_source

_UNKNOWN = "<unknown>"


def install_to_disk(request: InstallRequest, sink: Sink) -> Installed:
    """Partition a disk, install an image to it, and make it boot.

    Raises:
        InstallRefused: the request cannot be met. The disk is unchanged.
        Error, OSError: the installation failed. The disk is blank, unless the boot entry was
            written already.
    """
    if request.from_container:
        mounts.private_mount_namespace()
        running_image.mount_host_directories(request.source)
    machine = os.uname().machine
    decisions = checks.check_host(request, read_config(machine), machine)
    # Updates from a target whose signatures nobody checks would be refused from then on.
    sigpolicy.require_checkable(request.target, decisions.signature)
    if request.fetch_check:
        with (
            doing("Checking that the image for updates can be fetched"),
            open_source(request.target, decisions.signature),
        ):
            pass
    with open_source(request.source, decisions.signature) as source:
        checks.check_image(
            decisions, source.manifest_raw, source.config_raw, required_bytes(source)
        )
        check_last_layer(decisions, source)
        _announce(request, decisions, source, sink)
        if not request.from_container:
            mounts.private_mount_namespace()
        if request.wipe:
            sink(Message(f"Wiping device {decisions.device.path}"))
            target_disk.wipe(decisions.device)
        pulled = _write_disk(request, decisions, source, sink)
    sink(Message("Installation complete!"))
    return Installed(
        image_id=pulled.image_id,
        manifest_digest=pulled.manifest_digest,
        device=decisions.device.path,
        bootloader=decisions.loader.name,
    )


def _announce(request: InstallRequest, decisions: Decisions, source: Source, sink: Sink) -> None:
    disk = decisions.device
    for line in (
        f"Installing image: {request.target}",
        f"Digest: {source.manifest_digest}",
        f"Block setup: {checks.BLOCK_SETUP}",
        f"       Size: {disk.size_bytes}",
        f"     Serial: {disk.serial or _UNKNOWN}",
        f"      Model: {disk.model or _UNKNOWN}",
        f" Partitions: {'Discoverable' if decisions.discoverable else 'UUID'}",
    ):
        sink(Message(line))
    if decisions.signature is not None:
        sink(Message(sigpolicy.notice()))
    note_label(source, sink)


def _write_disk(
    request: InstallRequest, decisions: Decisions, source: Source, sink: Sink
) -> Pulled:
    with BlankUnlessKept(decisions.device, sink) as disk:
        path = decisions.device.path
        with stage(sink, "partition", f"Partitioning {path}"):
            layout = create_partitions(
                path, decisions.machine, decisions.root_size_mib, decisions.esp_size_mib
            )
        with stage(sink, "format", f"Creating {decisions.filesystem} on {layout.root.node}"):
            root_uuid = filesystem.make_root(decisions.filesystem, layout.root.node)
            if layout.esp is not None:
                filesystem.make_esp(layout.esp.node)
        with _mounted(layout, decisions, root_uuid) as target:
            pulled = deploy_image(request, decisions, source, target, sink)
            disk.keep()
            with stage(sink, "finalize", "Finalizing the file systems"):
                _finalize(target.root)
                if target.esp is not None:
                    _finalize(target.esp)
    return pulled


@contextmanager
def _mounted(
    layout: TargetPartitions, decisions: Decisions, root_uuid: uuid.UUID
) -> Iterator[BootTarget]:
    with ExitStack() as stack:
        root = stack.enter_context(mounts.mounted(layout.root.node, decisions.filesystem.value))
        esp = None
        if layout.esp is not None:
            esp = stack.enter_context(
                mounts.mounted(layout.esp.node, ESP_FILESYSTEM, options=ESP_OPTIONS)
            )
        yield BootTarget(
            disk=decisions.device.path,
            root=root,
            root_uuid=str(root_uuid),
            boot=stack.enter_context(root.ensure_dir("boot")),
            boot_uuid=str(root_uuid),
            esp=esp,
            esp_partition=layout.esp,
            bios_boot=layout.bios_boot,
        )


def _finalize(directory: Dir) -> None:
    """Trim a file system, write it back, and make it read-only."""
    with doing(f"Finalizing {directory.path}"):
        directory.sync()
        # Trimming helps some disks; nothing depends on it.
        with suppress(Error):
            process.run(["fstrim", "--quiet-unsupported", directory.path])
        mount.mount(None, directory.path, None, mount.MS_REMOUNT | mount.MS_RDONLY)
