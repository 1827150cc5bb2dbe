"""The QEMU command line of a machine, as a pure function of its description.

Machines are q35 with OVMF, so they have EFI variables however they boot, or with
QEMU's own BIOS. They have virtio disks in the order given: ``/dev/vda``, ``/dev/vdb`` and
so on, also found as ``/dev/disk/by-id/virtio-SERIAL``. A machine that reboots ends instead, and
whoever started it starts it again, unless it is told to stay. With the network,
the guest reaches the host's loopback interface at 10.0.2.2 and is itself 10.0.2.15.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed.credentials import smbios_options
from testbed.qemu import Qemu

#: The machine's name of the host's loopback interface.
HOST_ADDRESS = "10.0.2.2"
AGENT_PORT = "org.bootc.agent"

#: Emulated, wide vectors and string instructions cost more than what they are used in place of.
_CPU_EMULATED = "max,-avx,-avx2,-erms,-fsrm,-fsrs,-fzrm,-svm"

#: The user's choice of an accelerator; ``auto`` is for :mod:`testbed.accelerator` to replace.
VARIABLE, AUTO = "BOOTC_QEMU_ACCEL", "auto"
EMULATED = "tcg,thread=multi"


def accelerator() -> str:
    """Return the value of ``-accel``: the user's choice, or emulation, which works everywhere."""
    chosen = os.environ.get(VARIABLE)
    return EMULATED if chosen in (None, "", AUTO) else chosen


def processors() -> str:
    """Return the number of processors of a machine: ``$BOOTC_QEMU_PROCESSORS``, or two."""
    return os.environ.get("BOOTC_QEMU_PROCESSORS", "2")


@dataclass(frozen=True, slots=True)
class Disk:
    """A raw image as a virtio disk; what is written to a snapshot is forgotten."""

    path: Path
    serial: str
    snapshot: bool = False
    read_only: bool = False

    def option(self) -> str:
        """The value of ``-drive``."""
        parts = [
            f"file={_escape(self.path)}",
            "format=raw",
            "if=none",
            f"id={self.serial}",
            "discard=unmap",
            "detect-zeroes=unmap",
            # The host's page cache outlives the emulator, and no test cuts the host's power.
            "cache=unsafe",
        ]
        if self.snapshot:
            parts.append("snapshot=on")
        if self.read_only:
            parts.append("readonly=on")
        return ",".join(parts)


@dataclass(frozen=True, slots=True)
class DirectBoot:
    """A kernel that QEMU hands to the firmware itself, without a boot loader."""

    kernel: Path
    initramfs: Path
    cmdline: str


@dataclass(frozen=True, slots=True)
class Hardware:
    """The parts of a machine, what it runs on, and what it is told.

    A machine with a BIOS has no firmware variables; the file is not used.
    """

    firmware_vars: Path
    disks: Sequence[Disk]
    direct: DirectBoot | None = None
    network: bool = False
    memory_mib: int = 2048
    credentials: Mapping[str, bytes] = field(default_factory=dict)
    accelerator: str = field(default_factory=accelerator)
    bios: bool = False
    #: Its firmware enforces Secure Boot with the keys in the variables.
    secure_boot: bool = False
    #: What its TPM remembers, a directory; None if it has no TPM.
    tpm: Path | None = None


def qemu_command(
    qemu: Qemu,
    hardware: Hardware,
    *,
    console: str,
    agent: Path | None = None,
    monitor: Path | None = None,
    tpm: Path | None = None,
    resume: Path | None = None,
    stay: bool = False,
) -> list[str]:
    """Return the command that starts the machine.

    Args:
        qemu: The emulator.
        hardware: The machine.
        console: What the serial console is connected to, in the words of ``-serial``.
        agent: A listening Unix socket that the guest's agent port connects to.
        monitor: A listening Unix socket that QEMU's own monitor connects to.
        tpm: The control socket of a running swtpm.
        resume: A saved machine's memory; the machine waits for the monitor's word to go on.
        stay: Reboot when the guest reboots.
    """
    machine = "q35,smm=on" if hardware.secure_boot else "q35"
    argv = [*qemu.argv, "-machine", machine, "-accel", hardware.accelerator, "-smp", processors()]
    argv += ["-cpu", _CPU_EMULATED if hardware.accelerator.startswith("tcg") else "max"]
    argv += ["-m", str(hardware.memory_mib), "-nodefaults", "-display", "none"]
    argv += [] if stay else ["-no-reboot"]
    if not hardware.bios:
        code = _escape(qemu.secure_firmware_code if hardware.secure_boot else qemu.firmware_code)
        argv += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={code}"]
        variables = _escape(hardware.firmware_vars)
        argv += ["-drive", f"if=pflash,format=raw,unit=1,file={variables}"]
    if hardware.secure_boot:
        # Only code of the firmware writes the variables, and it does not support suspending.
        argv += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        argv += ["-global", "ICH9-LPC.disable_s3=1"]
    for disk in hardware.disks:
        argv += ["-drive", disk.option()]
        argv += ["-device", f"virtio-blk-pci,drive={disk.serial},serial={disk.serial}"]
    if hardware.network:
        argv += ["-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0"]
    argv += ["-device", "virtio-rng-pci", "-serial", console]
    if agent is not None:
        argv += ["-device", "virtio-serial-pci"]
        argv += ["-chardev", f"socket,id=agent,path={_escape(agent)}"]
        argv += ["-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"]
    if monitor is not None:
        argv += ["-chardev", f"socket,id=monitor,path={_escape(monitor)}"]
        argv += ["-mon", "chardev=monitor,mode=control"]
    if tpm is not None:
        argv += ["-chardev", f"socket,id=tpm,path={_escape(tpm)}"]
        argv += ["-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0"]
    if resume is not None:
        argv += ["-incoming", f"file:{resume}"]
    if hardware.direct is not None:
        argv += ["-kernel", str(hardware.direct.kernel), "-initrd", str(hardware.direct.initramfs)]
        argv += ["-append", hardware.direct.cmdline]
    argv += smbios_options(hardware.credentials)
    return argv


def _escape(path: Path) -> str:
    """A path inside a comma-separated option."""
    return str(path).replace(",", ",,")
