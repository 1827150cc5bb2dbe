"""The machine of ``test_sealed.py``: how it is made, how it lives, and its disk for attackers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from journeys import LONG_S, Installed, Journey

from bootc.formats.digest import Algorithm, Digest, OciDigest
from bootc.formats.verity import verity_digest
from support import howto, require, ukify
from support.sealtools import Keys
from support.variants import Variant
from testbed import disks
from testbed.demo_os import DemoOs, installed
from testbed.machine import Machine
from testbed.registry import Registry
from testbed.tamper import Ext4, Fat, esp, root_filesystem

TOP = Path(__file__).parents[2]
INSTALL = howto.installer("sealed", "bootc install to-disk")
#: What the owner does where the image is built.
SEAL = (
    howto.command("sealed", "examples/sealed/make-keys"),
    howto.command("sealed", "umoci insert"),
    howto.command("sealed", "bootc container seal"),
)

#: Prints the last byte of two variables of the firmware: Secure Boot is on, no setup mode.
SECURE = """
cd /sys/firmware/efi/efivars
for name in SecureBoot SetupMode; do tail -c1 $name-8be4df61-93ca-11d2-aa0d-00e098032b8c; done |
od -An -tu1
"""
#: Files that no boot needs, and what is done to their objects.
CHANGED, UNPROTECTED, MISSING = (
    f"/usr/share/common-licenses/{name}" for name in ("GPL-3", "GPL-2", "LGPL-2.1")
)
#: A file that does not change.
UNTOUCHED = "/usr/share/common-licenses/LGPL-3"


@dataclass(frozen=True, slots=True)
class Sealed:
    """The images, and the life of one machine."""

    images: dict[str, Variant]
    #: What signed them; the firmware trusts it.
    keys: Keys
    #: Secure Boot and setup mode, as the firmware says.
    secure: list[str]
    cmdline: str
    #: The contents of files, by path.
    contents: dict[str, bytes]
    #: By the image that was booted.
    slots: dict[str, dict[str, str | None]]
    status: str
    #: The disk in the end: the first image boots next, the second one is there.
    end: Installed

    def copy(self, directory: Path) -> Attacked:
        """Copy disk and firmware variables, to be attacked."""
        disk = disks.copy(self.end.disk, directory / "disk.img")
        shutil.copyfile(self.end.firmware_vars, directory / "vars.fd")
        return Attacked(self, disk, directory / "vars.fd", root_filesystem(disk), esp(disk))


@dataclass(frozen=True, slots=True)
class Attacked:
    """A copy of the machine's disk in the hands of somebody else."""

    sealed: Sealed
    disk: Path
    firmware_vars: Path
    root: Ext4
    esp: Fat

    def image(self, tag: str) -> str:
        """Return the id of an image."""
        return self.sealed.images[tag].image_id.hex

    def object_of(self, path: str) -> str:
        """Return where the root file system keeps the content of a file of the image."""
        return object_path(verity_digest(self.sealed.contents[path], Algorithm.SHA512).hex)

    @property
    def kernel(self) -> str:
        """The path on the ESP of the unified kernel image that boots by default."""
        (path,) = (
            path
            for path in self.esp.files()
            if path.endswith(f"bootc_composefs-{self.image('s1')}.efi")
        )
        return path

    def machine(self, console: Path) -> Machine:
        """Return the machine with this disk."""
        tpm = self.sealed.end.tpm
        hardware = installed(self.disk, self.firmware_vars, secure_boot=True, tpm=tpm)
        return Machine(hardware, keep_console=console)

    def remove_entries(self, *tags: str) -> None:
        """Remove the boot entries of images, so that another one boots."""
        for path in self.esp.files():
            if path.startswith("loader/entries/"):
                content = self.esp.read(path)
                if any(self.image(tag).encode() in content for tag in tags):
                    self.esp.remove(path)


def seal_as_the_tutorial_says(demo_os: DemoOs, directory: Path) -> tuple[dict[str, Any], Keys]:
    """Run the commands of the tutorial; return what they say of the image, and the keys."""
    require.tool("osslsigncode")
    shutil.copytree(demo_os.layout, directory / "os")
    (directory / "examples").symlink_to(TOP / "examples")
    programs = ukify.program(directory / "programs", stub=False)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    for command in SEAL:
        done = subprocess.run(
            command,
            shell=True,
            cwd=directory,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    first = {
        "reference": f"oci:{directory}/os:sealed",
        "manifest_digest": OciDigest.parse(said["Digest"]),
        "image_id": Digest.from_hex(said["Deployment"]),
    }
    return first, Keys(directory / "keys/db.key", directory / "keys/db.pem")


def enrol(start: Installed, logs: Path) -> None:
    """Start the machine for the first time: the boot loader gives the keys to the firmware."""
    hardware = installed(start.disk, start.firmware_vars, secure_boot=True)
    with Machine(hardware, keep_console=logs / "sealed-enrol.txt") as machine:
        machine.wait_console("(?i)secure boot keys successfully enrolled", before_kernel=True)
        machine.wait_end()


def live_through(
    start: Installed,
    images: dict[str, Variant],
    keys: Keys,
    registry: Registry,
    directory: Path,
    logs: Path,
) -> Sealed:
    """Boot, update, roll back, and keep the disk."""
    (directory / "life").mkdir()
    with Journey(
        start, registry, name="sealed", directory=directory / "life", logs=logs
    ) as journey:
        assert journey.boot() == "running"
        secure = journey.machine.run(SECURE).stdout.split()
        cmdline = journey.machine.run("cat /proc/cmdline").stdout
        status = journey.machine.run(howto.command("sealed", "bootc status")).stdout
        contents = {
            path: journey.machine.run(f"cat {path}").stdout_bytes
            for path in (CHANGED, UNPROTECTED, MISSING, UNTOUCHED)
        }
        seen = {"s1": journey.slots()}
        journey.publish(images["s2"])
        journey.machine.run(howto.command("sealed", "bootc upgrade"), timeout_s=LONG_S)
        assert journey.reboot() == "running"
        seen["s2"] = journey.slots()
        journey.bootc("rollback")
        journey.shut_down()
        disk = disks.copy(journey.disk, directory / "lived.img")
        firmware_vars = Path(shutil.copyfile(journey.firmware_vars, directory / "lived.vars"))
    start.disk.unlink()
    end = replace(start, disk=disk, firmware_vars=firmware_vars)
    return Sealed(images, keys, secure, cmdline, contents, seen, status, end)


def object_path(digest: str) -> str:
    return f"/composefs/objects/{digest[:2]}/{digest[2:]}"
