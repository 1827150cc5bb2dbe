"""Chooses what machines run on: KVM if it boots a guest here, otherwise emulation (TCG).

That /dev/kvm can be opened says little: nested in another virtual machine, it may create
processors that never boot a kernel. So the probe boots the demo's kernel as far as its initramfs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from testbed.command import AUTO, EMULATED, VARIABLE, DirectBoot, Hardware
from testbed.demo_os import DemoOs
from testbed.machine import Machine, MachineError
from testbed.qemu import Qemu

#: KVM boots the kernel in two or three seconds.
_PROBE_TIMEOUT_S = 15.0


def settle(demo: DemoOs, qemu: Qemu) -> str:
    """Choose for all machines of this process and its children, unless the user has chosen.

    The choice is kept in ``$BOOTC_QEMU_ACCEL``, where it can be made, too; ``auto`` asks the probe.

    Returns:
        A line that says what machines run on.
    """
    chosen = os.environ.get(VARIABLE)
    if chosen and chosen != AUTO:
        return f"Virtual machines run with -accel {chosen}, as {VARIABLE} says"
    fault = kvm_fault(demo, qemu)
    os.environ[VARIABLE] = EMULATED if fault else "kvm"
    return f"Virtual machines are emulated (TCG): {fault}" if fault else "Virtual machines use KVM"


def kvm_fault(demo: DemoOs, qemu: Qemu) -> str | None:
    """Return why KVM cannot be used here, or None if it boots a guest."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "/dev/kvm cannot be opened"
    kernel, initramfs = (demo.directory / name for name in ("vmlinuz", "initramfs.img"))
    if not (kernel.exists() and initramfs.exists()):
        return f"{kernel} is not built, which would be tried with /dev/kvm"
    direct = DirectBoot(kernel, initramfs, "console=ttyS0")
    with tempfile.TemporaryDirectory(prefix="testbed-kvm-") as directory:
        firmware_vars = Path(directory, "vars.fd")
        shutil.copyfile(qemu.firmware_vars, firmware_vars)
        hardware = Hardware(firmware_vars, [], direct, accelerator="kvm")
        try:
            with Machine(hardware, qemu=qemu) as machine:
                if machine.starts_kernel(_PROBE_TIMEOUT_S):
                    return None
        except MachineError:
            return "QEMU cannot use /dev/kvm"
    return "/dev/kvm can be opened, but does not boot a guest"
