"""A machine without firmware, for GRUB: file systems and files in the place of its disk."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.deploy_image import deploy_image
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.loader_installer import BootTarget, LoaderInstaller
from bootc.deploy.install.partition import Partition
from bootc.deploy.install.request import InstallRequest
from bootc.events import Event, Message
from bootc.formats.imgref import ImageReference
from bootc.fs import mounts
from bootc.fs.dir import Dir
from bootc.oci.source import open_source
from support import images, require

MIB = 1 << 20
ROOT_UUID = "0b1c2d3e-4f50-4162-8384-95a6b7c8d9e0"
ESP_UUID = "11111111-2222-4333-8444-555555555555"
TARGET = ImageReference("registry", "example.com/os:1")


@dataclass
class Machine:
    """A root file system, a directory as ESP, and files as disk and BIOS boot partition."""

    root: Dir
    esp: Dir
    disk: Path
    bios_boot: Path
    events: list[Event] = field(default_factory=list)
    boots_without_sector_0: bool | None = None

    @property
    def notices(self) -> list[str]:
        """The messages that begin with "notice"."""
        said = (event.text for event in self.events if isinstance(event, Message))
        return [text for text in said if text.startswith("notice")]

    def install(
        self,
        layout: images.Layout,
        loader: LoaderInstaller,
        *kargs: str,
        generic: bool = True,
        skip_boot_uuid: bool = False,
        **target: Any,
    ) -> str:
        """Install an image, and return its id; ``target`` changes the target."""
        source_ref = ImageReference.parse(layout.reference())
        request = InstallRequest(source=source_ref, target=TARGET, generic_image=generic)
        decisions = Decisions(
            machine="x86_64",
            loader=loader,
            filesystem=Filesystem.EXT4,
            allow_missing_verity=True,
            kargs=kargs,
            skip_boot_uuid=skip_boot_uuid,
        )
        esp = loader.needs_esp
        with self.root.ensure_dir("boot") as boot, open_source(source_ref) as source:
            boot_target = BootTarget(
                disk=str(self.disk),
                root=self.root,
                root_uuid=ROOT_UUID,
                boot=boot,
                boot_uuid=ROOT_UUID,
                root_kargs=(f"root=UUID={ROOT_UUID}", "rw"),
                esp=self.esp if esp else None,
                esp_partition=Partition("/dev/vda2", "", 8 * MIB, ESP_UUID) if esp else None,
                bios_boot=Partition(str(self.bios_boot), "", MIB, "", 2048, 2048),
            )
            boot_target = replace(boot_target, **target)
            pulled = deploy_image(request, decisions, source, boot_target, self.events.append)
            assert loader.boots(boot_target)
            # A kill before the boot sector was written.
            self.boots_without_sector_0 = loader.boots(replace(boot_target, disk="/dev/zero"))
        return pulled.image_id.hex


@contextmanager
def bench(path: Path) -> Iterator[Machine]:
    """Make the machine in an empty directory, and mount its root file system."""
    image, disk, bios_boot = (path / name for name in ("root.img", "disk", "bios-boot"))
    image.write_bytes(b"")
    for file, size in ((image, 64 * MIB), (disk, MIB), (bios_boot, MIB)):
        file.touch()
        with open(file, "r+b") as raw:
            raw.truncate(size)
    subprocess.run([require.tool("mkfs.ext4"), "-q", str(image)], check=True)
    losetup = [require.tool("losetup"), "--find", "--show", str(image)]
    loop = subprocess.run(losetup, check=True, capture_output=True, text=True).stdout.strip()
    (path / "esp").mkdir()
    try:
        with mounts.mounted(loop, "ext4") as root, Dir.open(path / "esp") as esp:
            yield Machine(root, esp, disk, bios_boot)
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)
