"""The stations of the journey that are visited once: what is done there, what is seen.

The first is README's demo. What it installed, updated and rolled back is the disk of the others.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support import howto
from testbed import disks
from testbed.agent import Result
from testbed.command import HOST_ADDRESS, Disk
from testbed.demo_os import LIVE_DEVICE, TARGET_DEVICE, TARGET_SIZE_BYTES, DemoOs, installed
from testbed.machine import Machine
from testbed.qemu import find_qemu
from testbed.registry import configuration
from testbed.saved import Saved

INSTALL = howto.installer("uki", "bootc install to-disk --bootloader systemd")
#: Disks of the live machine beside the one to install on: too small for that, and another blank.
SMALL, SMALL_BYTES = "/dev/vdc", 64 << 20
BLANK = "/dev/vdd"
TOP = Path(__file__).parents[2]
#: What make tells those it runs; the demo's is another.
OF_MAKE = {"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"}
_GUEST_MEASURE = Path(__file__).with_name("guest_measure.py").read_bytes()
#: A file that no boot needs, for the test that damages it.
BYSTANDER = "/usr/share/common-licenses/GPL-3"


#: One write below each place, and how it must go.
WRITES = {
    "/usr": "touch /usr/written",
    "/": "touch /written",
    "/sysroot": "touch /sysroot/written",
    "/etc": "echo kept >/etc/written",
    "/var": "echo kept >/var/written",
}


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What ``make demo`` said, and the machine it left, which runs version 1 again."""

    disk: Path
    firmware_vars: Path
    status: int
    said: str


@dataclass(frozen=True, slots=True)
class LiveBoot:
    """What the live machine did."""

    status: Result
    status_json: Result
    refusals: dict[str, Result]
    again: Result


@dataclass(frozen=True, slots=True)
class FirstBoot:
    """What the installed machine says of itself on its first boot."""

    state: str
    failed_units: str
    root_source: str
    mounts: dict[str, str]
    measured: dict[str, str | None]
    image_link: str
    meta_has_verity: bool
    status_human: str
    status_yaml: str
    status_json: str
    writes: dict[str, Result]
    bystander: bytes
    console: str

    @property
    def image_id(self) -> str:
        return self.root_source.removeprefix("composefs:")


def measure(machine: Machine, repository: str) -> dict[str, str | None]:
    """Ask the kernel for the fs-verity digest of every object of a repository in a machine."""
    result = machine.run(
        f"python3 - {repository}/objects", input_bytes=_GUEST_MEASURE, timeout_s=600
    )
    found: dict[str, str | None] = json.loads(result.stdout)
    return found


def allow_plain_http(machine: Machine, host: str) -> None:
    """Tell the machine's container tools that this registry has no TLS."""
    text = configuration(host)
    machine.run(
        "mkdir -p /etc/containers/registries.conf.d"
        " && cat >/etc/containers/registries.conf.d/test.conf",
        input_bytes=text.encode(),
    )


def demonstrate(demo_os: DemoOs, directory: Path, logs: Path) -> Demonstration:
    """Run README's demo."""
    environment = {name: value for name, value in os.environ.items() if name not in OF_MAKE}
    with (logs / "demo.txt").open("w+") as log:
        done = subprocess.run(
            ["make", "demo"], cwd=TOP, env=environment, stdout=log, stderr=log, check=False
        )
        log.seek(0)
        said = log.read()
    disk = disks.copy(demo_os.directory / "disk.img", directory / "disk.img")
    firmware_vars = directory / "vars.fd"
    shutil.copyfile(demo_os.directory / "vars.fd", firmware_vars)
    return Demonstration(disk, firmware_vars, done.returncode, said)


def save_live(demo_os: DemoOs, directory: Path, logs: Path, *, bios: bool = False) -> Saved:
    """Boot the live machine, with network and blank disks, and save it."""
    firmware_vars = directory / "vars.fd"
    shutil.copyfile(find_qemu().firmware_vars, firmware_vars)
    hardware = demo_os.live(
        disks.blank(directory / "target.img", TARGET_SIZE_BYTES),
        firmware_vars,
        Disk(disks.blank(directory / "small.img", SMALL_BYTES), "small"),
        Disk(disks.blank(directory / "blank.img", TARGET_SIZE_BYTES), "blank"),
        own=disks.copy(demo_os.live_image, directory / "live.img"),
        network=True,
        bios=bios,
    )
    console = logs / ("live-bios.txt" if bios else "live-machine.txt")
    with Machine(hardware, keep_console=console) as machine:
        machine.wait_ready()
        machine.wait_running()
        saved = machine.save(directory / "saved")
    for disk in hardware.disks:
        disk.path.unlink()
    return saved


def boot_live(
    live_machine: Saved, demonstration: Demonstration, registry: int, directory: Path, logs: Path
) -> LiveBoot:
    """Let the live machine try everything it must refuse. Its disk is not blank in the end."""
    hardware = live_machine.copy(directory)
    disks.copy(demonstration.disk, hardware.disks[0].path)
    host = f"{HOST_ADDRESS}:{registry}"
    good = f"docker://{host}/demo:v1"
    attempts = {
        "mounted": f"{INSTALL} --source-imgref {good} {LIVE_DEVICE}",
        "too small": f"{INSTALL} --source-imgref {good} {SMALL}",
        "not a block device": f"{INSTALL} --source-imgref {good} /etc/hostname",
        "not there": f"{INSTALL} --source-imgref {good} /dev/vdz",
        "no such image": f"{INSTALL} --source-imgref docker://{host}/demo:none {BLANK}",
        "no registry": f"{INSTALL} --source-imgref docker://{HOST_ADDRESS}:1/demo:v1 {BLANK}",
        "unbootable": f"{INSTALL} --source-imgref docker://{host}/unbootable:v1 {BLANK}",
    }
    with Machine(hardware, keep_console=logs / "live.txt", resume=live_machine) as machine:
        machine.wait_ready()
        # The disk was blank when the machine was saved.
        machine.run(f"blockdev --rereadpt {TARGET_DEVICE} && udevadm settle")
        allow_plain_http(machine, host)
        report = LiveBoot(
            status=machine.run("bootc status --format humanreadable", check=False),
            status_json=machine.run("bootc status --json", check=False),
            refusals={
                name: machine.run(command, check=False, timeout_s=600)
                for name, command in attempts.items()
            },
            again=machine.run(
                f"{INSTALL} --source-imgref {good} {TARGET_DEVICE}", check=False, timeout_s=600
            ),
        )
        machine.power_off()
    for disk in hardware.disks:
        disk.path.unlink()
    return report


def boot_installed(demonstration: Demonstration, logs: Path) -> FirstBoot:
    """Boot the installed machine in good health, and look at it."""
    hardware = installed(demonstration.disk, demonstration.firmware_vars)
    with Machine(hardware, keep_console=logs / "first-boot.txt") as machine:
        machine.wait_ready()
        state = machine.wait_running()
        root_source = machine.run("findmnt -no SOURCE /").stdout.strip()
        image = f"/sysroot/composefs/images/{root_source.removeprefix('composefs:')}"
        report = FirstBoot(
            state=state,
            failed_units=machine.run("systemctl --failed --no-legend --plain").stdout,
            root_source=root_source,
            mounts={
                path: machine.run(f"findmnt -no FSTYPE,OPTIONS {path}").stdout.strip()
                for path in ("/", "/etc", "/var", "/sysroot")
            },
            measured=measure(machine, "/sysroot/composefs"),
            image_link=machine.run(f"readlink {image}", check=False).stdout.strip(),
            meta_has_verity="Verity"
            in machine.run("lsattr -l /sysroot/composefs/meta.json").stdout,
            status_human=machine.run("bootc status --format humanreadable").stdout,
            status_yaml=machine.run("bootc status --format yaml").stdout,
            status_json=machine.run("bootc status --json").stdout,
            writes={place: machine.run(write, check=False) for place, write in WRITES.items()},
            bystander=machine.run(f"cat {BYSTANDER}").stdout_bytes,
            console=machine.console_text(),
        )
        machine.power_off()
    return report
