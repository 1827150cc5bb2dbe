"""A root file system and an ESP that images are installed to, without an installer's partitions.

The ESP is a tmpfs here (not every kernel has vfat), bootctl a fake that shows what it was given,
and fs-verity is done without; the boot tests have the real ones.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.deploy_image import deploy_image
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.loader_installer import BootTarget, LoaderInstaller
from bootc.deploy.install.loader_systemd_boot import SystemdBootInstaller
from bootc.deploy.install.partition import Partition
from bootc.deploy.install.request import InstallRequest
from bootc.events import Event
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType, Signature
from bootc.fs import mounts
from bootc.fs.dir import Dir
from bootc.kernel.mount import mount, umount2
from bootc.oci.pull import Pulled
from bootc.oci.source import open_source
from support import images, require
from support.commands import Command, Commands
from support.images import directory, file

MIB = 1 << 20
KERNEL, INITRAMFS = b"kernel" * 1000, b"initramfs" * 1000
ROOT_UUID = "0b1c2d3e-4f50-4162-8384-95a6b7c8d9e0"
ESP_UUID = "11111111-2222-4333-8444-555555555555"
TARGET = ImageReference("registry", "example.com/os:1")
SYSTEMD_BOOT = SystemdBootInstaller()
#: Show that the ESP is at /boot and that /tmp can be written; then be a boot loader.
BOOTCTL = """
[ "$1" = --version ] && { echo 'systemd 257 (257.1)'; exit; }
: >"$3/tmp/scratch" && : >"$3/boot/loader-was-here" || exit 9
"""


def members(*more: images.Member) -> list[images.Member]:
    """Return the files of a small system, and more."""
    return [
        directory("etc"),
        file("etc/hostname", b"pristine\n"),
        file("etc/.updated", b"stamp"),
        directory("var"),
        directory("var/log"),
        directory("tmp", 0o1777),
        file(
            "usr/lib/os-release", b'ID=demo-os\nVERSION_ID=1\nPRETTY_NAME="Demo OS 1"\n' + b"#" * 99
        ),
        file("usr/lib/bootc/kargs.d/10-a.toml", b'kargs = ["console=ttyS0"]\n'),
        *more,
    ]


@dataclass
class Target:
    """A root file system and an ESP, mounted."""

    root: Dir
    esp: Dir
    bootctl: Command
    events: list[Event]

    def install(
        self,
        layout: images.Layout,
        *kargs: str,
        generic: bool = False,
        addons: tuple[str, ...] = (),
        signature: Signature | None = None,
        verity: bool = False,
        tolerant: bool = False,
        root_keys: bytes | None = None,
        disable_selinux: bool = False,
        boot_type: BootType | None = None,
        disable_sealing: bool = False,
        loader: LoaderInstaller = SYSTEMD_BOOT,
        clear_boot: Callable[[], None] | None = None,
    ) -> Pulled:
        source_ref = ImageReference.parse(layout.reference())
        request = InstallRequest(
            source=source_ref,
            target=TARGET,
            source_name=source_ref.name,
            generic_image=generic,
            uki_addons=addons,
            disable_selinux=disable_selinux,
            boot_type=boot_type,
            disable_sealing=disable_sealing,
            allow_missing_verity=tolerant,
        )
        decisions = Decisions(
            machine=os.uname().machine,
            loader=loader,
            filesystem=Filesystem.EXT4,
            allow_missing_verity=not verity,
            kargs=kargs,
            root_keys=root_keys,
            signature=signature,
        )
        with open_source(source_ref) as source:
            return deploy_image(
                request,
                decisions,
                source,
                BootTarget(
                    disk="/dev/vda",
                    root=self.root,
                    root_uuid=ROOT_UUID,
                    boot=self.root,
                    boot_uuid=ROOT_UUID,
                    esp=self.esp,
                    esp_partition=Partition("/dev/vda2", "", 8 * MIB, ESP_UUID, 4096, 16384),
                    root_kargs=(f"root=UUID={ROOT_UUID}", "rw"),
                ),
                self.events.append,
                clear_boot=clear_boot,
            )

    def entries(self) -> list[Path]:
        return sorted(Path(self.esp.path).glob("loader/entries/*"))


@contextmanager
def mounted_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """Make the file systems below a directory, and mount them."""
    require.root()
    image = tmp_path / "root.img"
    with open(image, "wb") as raw:
        raw.truncate(64 * MIB)
    subprocess.run([require.tool("mkfs.ext4"), "-q", str(image)], check=True)
    losetup = [require.tool("losetup"), "--find", "--show", str(image)]
    loop = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout.strip()
    esp = tmp_path / "esp"
    esp.mkdir()
    mount("tmpfs", str(esp), "tmpfs", 0, "size=8m")
    bootctl = Commands(tmp_path / "bin", monkeypatch).mock("bootctl", BOOTCTL)
    try:
        with mounts.mounted(loop, "ext4") as root_dir, Dir.open(esp) as esp_dir:
            yield Target(root_dir, esp_dir, bootctl, [])
    finally:
        umount2(str(esp), 0)
        subprocess.run(["losetup", "--detach", loop], check=True)
