"""Machines that were saved while they ran, to begin in the middle as often as wanted.

A boot takes 25 s under emulation; resuming a saved machine takes 2 s.

    running = machine.save(directory / "running")     # ends this machine
    with Machine(running.copy(tmp_path), resume=running) as machine:
        machine.wait_ready()                           # its clock is right again

Each resumed machine has disks and firmware variables of its own: copies of those that the
saved machine had. Its boot id, its processes and its mounts are those of the saved one. Its
console begins empty, and its connections to this host are gone.

QEMU reads a state only with the command line, version and processor flags that wrote it. Keep
saved machines in a temporary directory, and never longer than the test session that made them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from testbed import disks
from testbed.command import Hardware


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved machine: everything is in one directory."""

    directory: Path
    #: The machine's parts. Disks and variables are the saved ones: boot copies only.
    hardware: Hardware

    @property
    def state(self) -> Path:
        """The memory and the devices, as QEMU writes them."""
        return self.directory / "state"

    def copy(self, directory: Path) -> Hardware:
        """Copy the disks and the firmware variables for one more machine.

        Returns:
            The parts of that machine. Disks that it only reads are not copied.
        """
        hardware = copies_in(directory, self.hardware)
        copy_storage(self.hardware, hardware)
        return hardware

    def remove(self) -> None:
        """Delete the saved machine. Machines that were resumed from it run on."""
        shutil.rmtree(self.directory)


def copies_in(directory: Path, hardware: Hardware) -> Hardware:
    """Return a machine's parts with other files for all that it writes to.

    These are ``SERIAL.img`` for each disk and ``vars.fd``, in the directory.
    """
    copied = [
        disk if disk.read_only else replace(disk, path=directory / f"{disk.serial}.img")
        for disk in hardware.disks
    ]
    return replace(hardware, firmware_vars=directory / "vars.fd", disks=copied)


def copy_storage(source: Hardware, target: Hardware) -> None:
    """Copy disks and firmware variables; delete the copies if that fails or is interrupted."""
    pairs = [
        (ours.path, theirs.path)
        for ours, theirs in zip(source.disks, target.disks, strict=True)
        if ours.path != theirs.path
    ]
    pairs.append((source.firmware_vars, target.firmware_vars))
    try:
        for ours, theirs in pairs:
            disks.copy(ours, theirs)
    except BaseException:
        for _, theirs in pairs:
            theirs.unlink(missing_ok=True)
        raise
