"""A system's life on one disk: booted, changed, rebooted, cut off, booted again.

Every journey starts from a copy of one :class:`Installed` disk, with a boot or where the
machine that booted it was saved. The image it was installed from is a tag of the test registry
that the journey moves (:meth:`Journey.publish`), so that ``bootc upgrade`` finds something new.

Emulated on two cores an installation takes 80 s, a boot 25 s and a shutdown 4 s; a saved
machine is resumed in 2 s.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stations import INSTALL, allow_plain_http

from support.variants import Variant
from testbed import disks
from testbed.agent import Result
from testbed.command import HOST_ADDRESS, Disk
from testbed.demo_os import TARGET_DEVICE, installed
from testbed.machine import Machine, MachineError
from testbed.registry import Registry, configuration
from testbed.saved import Saved

FINALIZE_UNIT = "bootc-finalize-staged.service"
FINALIZE = ("/usr/bin/bootc", "composefs-finalize-staged")
#: How long a command may take that pulls an image.
LONG_S = 900.0
#: Where the guest finds the ESP: systemd mounts it there when somebody looks.
ESP = "/boot"
#: Fills the ESP (:meth:`Journey.leave_on_esp`).
BALLAST = f"{ESP}/ballast"

_SECOND_DRIVE_BYTES = 1 << 30
_GUEST_CUT = Path(__file__).with_name("guest_cut.py").read_bytes()
_CUT = "/run/guest_cut.py"


#: By tag, without the letter of the family.
Images = Mapping[str, Variant]


@dataclass(frozen=True, slots=True)
class Installed:
    """A disk with a fresh installation, to be copied; do not boot this one."""

    disk: Path
    firmware_vars: Path
    #: What it was installed from, as the guest calls it, without transport and tag.
    repository: str
    #: The tag it follows.
    tag: str
    #: Its machine starts with a BIOS.
    bios: bool = False
    #: Its firmware enforces Secure Boot.
    secure_boot: bool = False
    #: What its TPM remembers, a directory; None if it has no TPM.
    tpm: Path | None = None
    #: The machine that runs on this disk; without it, the disk has not been booted.
    saved: Saved | None = None


def install(
    live_machine: Saved,
    registry: Registry,
    variant: Variant,
    *,
    name: str,
    directory: Path,
    logs: Path,
    command: str = INSTALL,
    root: int = 3,
) -> Installed:
    """Push a variant as ``NAME:latest`` and install it; it may use the registry from then on.

    ``root`` is the number of the root partition.
    """
    hardware = live_machine.copy(directory)
    disk, *others = (part.path for part in hardware.disks)
    registry.push(variant.reference, f"{name}:latest", "--preserve-digests")
    host = f"{HOST_ADDRESS}:{registry.port}"
    console = logs / f"{name}-install.txt"
    with Machine(hardware, keep_console=console, resume=live_machine) as machine:
        machine.wait_ready()
        allow_plain_http(machine, host)
        machine.run(
            f"{command} --source-imgref docker://{host}/{name}:latest {TARGET_DEVICE}",
            timeout_s=1800,
        )
        machine.run(
            f"set -e; mkdir -p /run/target; mount {TARGET_DEVICE}{root} /run/target\n"
            "cd /run/target/state/deploy/*/etc\n"
            "mkdir -p containers/registries.conf.d\n"
            "cat >containers/registries.conf.d/test.conf\n"
            "cd /; umount /run/target",
            input_bytes=configuration(host).encode(),
        )
        machine.power_off()
    for other in others:
        other.unlink()
    variables = hardware.firmware_vars
    return Installed(disk, variables, f"{host}/{name}", "latest", hardware.bios)


class Journey:
    """One system, on a copy of an installed disk; a context manager that ends its machine."""

    def __init__(
        self,
        start: Installed,
        registry: Registry,
        *,
        name: str,
        directory: Path,
        logs: Path,
        second_drive: bool = False,
    ) -> None:
        self._registry = registry
        self._repository = start.repository
        self._tag = start.tag
        self._saved = start.saved
        self._bios = start.bios
        self._secure_boot = start.secure_boot
        self._tpm = start.tpm
        self._name = name
        self._logs = logs
        self._disk = disks.copy(start.disk, directory / f"{name}.img")
        self._firmware_vars = directory / f"{name}.vars"
        shutil.copyfile(start.firmware_vars, self._firmware_vars)
        self._more: list[Disk] = []
        if second_drive:
            drive = disks.blank(directory / f"{name}-second.img", _SECOND_DRIVE_BYTES)
            self._more.append(Disk(drive, "second"))
        self._boots = 0
        self._running = ExitStack()
        self._machine: Machine | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cut_power()
        for disk in (self._disk, *(disk.path for disk in self._more)):
            disk.unlink()

    @property
    def machine(self) -> Machine:
        """The machine that runs now."""
        assert self._machine is not None, "the machine is off"
        return self._machine

    @property
    def disk(self) -> Path:
        """The disk, for a look from outside while the machine is off."""
        assert self._machine is None, "the machine is on"
        return self._disk

    @property
    def firmware_vars(self) -> Path:
        """The variables of the firmware, while the machine is off."""
        assert self._machine is None, "the machine is on"
        return self._firmware_vars

    def reference(self, variant_tag: str | None = None) -> str:
        """Return the image as ``bootc switch`` and ``status`` call it."""
        return f"{self._repository}:{variant_tag or self._tag}"

    def publish(self, variant: Variant, tag: str | None = None) -> None:
        """Let a tag of the registry be this variant; by default the one the system follows."""
        name = self._repository.partition("/")[2]
        self._registry.push(variant.reference, f"{name}:{tag or self._tag}", "--preserve-digests")

    def boot(self) -> str:
        """Power on and wait until the system is up; return systemd's word for its state."""
        # Whatever it was doing when it was saved, it does no longer.
        self._saved = None
        return self._begin(None).wait_running()

    def resume(self) -> None:
        """Begin where the machine was saved; nothing else has begun on the disk."""
        assert self._saved is not None, "the disk was not booted, or is no longer as it was saved"
        saved, self._saved = self._saved, None
        self._begin(saved)

    def save(self, directory: Path) -> Installed:
        """Save the machine as it runs, for other journeys to resume; this one's is off then."""
        saved = self.machine.save(directory)
        self.cut_power()
        disk, firmware_vars = saved.hardware.disks[0].path, saved.hardware.firmware_vars
        return Installed(
            disk,
            firmware_vars,
            self._repository,
            self._tag,
            self._bios,
            self._secure_boot,
            self._tpm,
            saved,
        )

    def _begin(self, resume: Saved | None) -> Machine:
        assert self._machine is None, "the machine is on"
        self._boots += 1
        hardware = installed(
            self._disk,
            self._firmware_vars,
            *self._more,
            network=True,
            bios=self._bios,
            secure_boot=self._secure_boot,
            tpm=self._tpm,
        )
        console = self._logs / f"{self._name}-{self._boots}.txt"
        machine = self._running.enter_context(
            Machine(hardware, keep_console=console, resume=resume)
        )
        self._machine = machine
        machine.wait_ready()
        return machine

    def forget_firmware(self, blank: Path) -> None:
        """Have the firmware forget all variables; the machine is off."""
        assert self._machine is None, "the machine is on"
        shutil.copyfile(blank, self._firmware_vars)

    def shut_down(self) -> str:
        """Reboot in an orderly way as far as where the firmware would start again.

        Return what the console said meanwhile.
        """
        before = len(self.machine.console_text())
        self.machine.reboot()
        said = self.machine.console_text()[before:]
        self.cut_power()
        return said

    def reboot(self) -> str:
        """Reboot in an orderly way; return systemd's word for the state of what came up."""
        self.shut_down()
        return self.boot()

    def cut_power(self) -> None:
        """End the machine at once. What it has not written to its disk is lost."""
        self._machine = None
        self._running.close()

    def bootc(self, arguments: str, *, check: bool = True) -> Result:
        """Run a bootc command.

        Raises:
            CommandError: it failed, and ``check`` is set.
        """
        return self.machine.run(f"bootc {arguments}", check=check, timeout_s=LONG_S)

    def status(self) -> dict[str, Any]:
        """Return the host document."""
        host: dict[str, Any] = json.loads(self.bootc("status --json").stdout)
        return host

    def findings(self) -> list[dict[str, Any]]:
        """Return what the status finds wrong; usually nothing."""
        found: list[dict[str, Any]] = self.status()["status"].get("findings") or []
        return found

    def slots(self) -> dict[str, str | None]:
        """Return the image id of each slot, None where it is empty."""
        status = self.status()["status"]
        return {
            slot: status[slot] and status[slot]["composefs"]["verity"]
            for slot in ("booted", "staged", "rollback")
        }

    def esp_files(self) -> dict[str, int]:
        """Return the sizes of all files on the ESP but the ballast, by path."""
        output = self.machine.run(f"cd {ESP}/. && find . -type f -printf '%s %P\\n'").stdout
        sizes = (line.split(" ", 1) for line in output.splitlines())
        return {path: int(size) for size, path in sizes if f"{ESP}/{path}" != BALLAST}

    def esp_entries(self) -> dict[str, str]:
        """Return the active boot entries, by file name."""
        command = (
            f'cd {ESP}/loader/entries && for f in *.conf; do cat "$f"; printf "%s\\0" "$f"; done'
        )
        *bodies, rest = self.machine.run(command).stdout.split("\0")
        assert rest == "", rest
        split = (body.rpartition("\n") for body in bodies)
        return {name: body for body, _, name in split}

    def esp_free_bytes(self) -> int:
        """Return how much room the ESP has."""
        return int(self.machine.run(f"cd {ESP}/. && df -B1 --output=avail .").stdout.split()[1])

    def leave_on_esp(self, free_bytes: int) -> None:
        """Fill the ESP with a file of nobody's so that this much stays free, to a cluster.

        For room for N sets beside the one that is there, leave N times its size.
        """
        self.machine.run(f"rm -f {BALLAST}")
        size = self.esp_free_bytes() - free_bytes
        assert size >= 0, f"the ESP has no {free_bytes} bytes"
        # FAT knows no holes: this writes zeros, which the disk image leaves out.
        self.machine.run(f"truncate -s {size} {BALLAST} && sync -f {BALLAST}", timeout_s=300)

    def cut_at(self, moment: str, *program: str) -> None:
        """Run a Python program and cut the power before a change to the disk.

        Args:
            moment: Part of the change's description (``guest_cut.py``).
            program: The program and its arguments.

        Raises:
            MachineError: it ended without making such a change.
        """
        self._send_cut()
        try:
            result = self.machine.run(_cut_command(moment, program), check=False, timeout_s=LONG_S)
        except MachineError:
            self.machine.wait_end(30)
            self.cut_power()
            return
        raise MachineError(f"ended without {moment}: {result}")

    def cut_at_finalize(self, moment: str) -> None:
        """Shut down, and cut the power before a change to the disk that finalizing makes.

        Raises:
            MachineError: the shutdown ended in good order.
        """
        self._send_cut()
        command = _cut_command(moment, FINALIZE)
        self.machine.run(
            f"d=/run/systemd/system/{FINALIZE_UNIT}.d; mkdir -p $d && cat >$d/cut.conf"
            " && systemctl daemon-reload",
            input_bytes=f"[Service]\nExecStop=\nExecStop={command}\n".encode(),
        )
        said = self.shut_down()
        if "Unmounting sysroot.mount" in said:
            raise MachineError(f"shut down without {moment}: {said}")

    def _send_cut(self) -> None:
        self.machine.run(f"cat >{_CUT}", input_bytes=_GUEST_CUT)


def _cut_command(moment: str, program: Sequence[str]) -> str:
    return shlex.join(["/usr/bin/python3", _CUT, moment, *program])
