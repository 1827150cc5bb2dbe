"""Installs to the further ESPs of a machine whose root file system is on several disks.

The main ESP comes first here, and the mirrors follow the commit point. Before it nothing boots, so
the installation still has one commit point, and an installation that is undone leaves no boot entry
on a mirror. A mirror that cannot be written is a warning: the machine boots without it, and each
later change of the boot menu repairs it.
"""

from __future__ import annotations

import dataclasses
import logging

from bootc.boot import mirrors
from bootc.boot.loader import Bootloader
from bootc.boot.loader_programs import started_program
from bootc.boot.scheme import BootDirs, Mirror
from bootc.deploy.install import firmware_start
from bootc.deploy.install.loader_installer import BootTarget, LoaderInstaller, MirrorTarget
from bootc.errors import Error, one_line
from bootc.events import Sink, stage

_log = logging.getLogger(__name__)


def write_mirrors(
    loader: LoaderInstaller, target: BootTarget, boot: BootDirs, sink: Sink, *, generic: bool
) -> None:
    """Copy the boot loader, the kernel and the menu to the mirrors, and tell the firmware of them.

    Args:
        loader: The boot loader, which is installed.
        target: Where it is installed.
        boot: Its directories on the main ESP.
        sink: Gets progress.
        generic: The firmware of this machine stays unchanged.
    """
    if not target.mirrors:
        return
    with stage(sink, "mirrors", "Writing the further EFI system partitions"):
        found = tuple(_mirror(loader, target, mirror, boot) for mirror in target.mirrors)
        mirrors.synchronise(dataclasses.replace(boot, mirrors=found))
        # The first of them shall be started first.
        for mirror in () if generic else reversed(target.mirrors):
            _ensure_started(mirror, target, boot.scheme.bootloader)


def _mirror(
    loader: LoaderInstaller, target: BootTarget, mirror: MirrorTarget, boot: BootDirs
) -> Mirror:
    device = mirror.esp_partition.node
    try:
        return Mirror(device, loader.boot_dirs(target.on_mirror(mirror), boot.scheme.boot_type))
    except Error as exc:
        return Mirror(device, None, one_line(exc))


def _ensure_started(mirror: MirrorTarget, target: BootTarget, bootloader: Bootloader) -> None:
    partition = mirror.esp_partition
    try:
        started = started_program(bootloader, mirror.esp)
    except OSError as exc:
        _log.warning("the firmware gets no boot entry for %s: %s", partition.node, one_line(exc))
        return
    if started is not None:
        firmware_start.ensure_started(partition, *started, behind=target.esp_partition)
