"""The stations of the journey that are visited once: what is done there, what is seen."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from testbed import disks
from testbed.agent import Result
from testbed.command import HOST_ADDRESS, Disk
from testbed.demo_os import TARGET_DEVICE, TARGET_SIZE_BYTES, DemoOs, installed
from testbed.machine import Machine
from testbed.qemu import find_qemu
from testbed.registry import configuration

INSTALL = "bootc install to-disk --composefs-backend --bootloader systemd --filesystem ext4"
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
class LiveBoot:
    """What the live machine did."""

    disk: Path
    firmware_vars: Path
    reference: str
    status: Result
    status_json: Result
    refusals: dict[str, Result]
    install: Result
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


def boot_live(demo_os: DemoOs, registry: int, directory: Path, logs: Path) -> LiveBoot:
    """The live machine: everything it must refuse, and then the installation."""
    disk = disks.blank(directory / "disk.img", TARGET_SIZE_BYTES)
    small = disks.blank(directory / "small.img", 64 << 20)
    firmware_vars = directory / "vars.fd"
    shutil.copyfile(find_qemu().firmware_vars, firmware_vars)
    host = f"{HOST_ADDRESS}:{registry}"
    good = f"docker://{host}/demo:v1"
    attempts = {
        "mounted": f"{INSTALL} --source-imgref {good} /dev/vda",
        "too small": f"{INSTALL} --source-imgref {good} /dev/vdc",
        "not a block device": f"{INSTALL} --source-imgref {good} /etc/hostname",
        "not there": f"{INSTALL} --source-imgref {good} /dev/vdz",
        "no such image": f"{INSTALL} --source-imgref docker://{host}/demo:none {TARGET_DEVICE}",
        "no registry": f"{INSTALL} --source-imgref docker://{HOST_ADDRESS}:1/demo:v1 "
        + TARGET_DEVICE,
        "unbootable": f"{INSTALL} --source-imgref docker://{host}/unbootable:v1 " + TARGET_DEVICE,
    }
    hardware = demo_os.live(disk, firmware_vars, Disk(small, "small"), network=True)
    with Machine(hardware, keep_console=logs / "live.txt") as machine:
        machine.wait_ready()
        allow_plain_http(machine, host)
        report = LiveBoot(
            disk=disk,
            firmware_vars=firmware_vars,
            reference=f"{host}/demo:v1",
            status=machine.run("bootc status --format humanreadable", check=False),
            status_json=machine.run("bootc status --json", check=False),
            refusals={
                name: machine.run(command, check=False, timeout_s=600)
                for name, command in attempts.items()
            },
            install=machine.run(
                f"{INSTALL} --source-imgref {good} {TARGET_DEVICE}",
                check=False,
                timeout_s=1800,
            ),
            again=machine.run(
                f"{INSTALL} --source-imgref {good} {TARGET_DEVICE}", check=False, timeout_s=600
            ),
        )
        machine.power_off()
    (logs / "install.txt").write_text(report.install.stdout + report.install.stderr)
    return report


def boot_installed(live_boot: LiveBoot, logs: Path) -> FirstBoot:
    """The installed machine in good health."""
    hardware = installed(live_boot.disk, live_boot.firmware_vars)
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
