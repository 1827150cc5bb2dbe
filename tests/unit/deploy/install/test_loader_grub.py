from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bootc.boot.image_kernel import find_boot_resource
from bootc.deploy.install.loader_grub import GrubAnyInstaller, GrubUefiInstaller
from bootc.deploy.install.loader_installer import (
    Booting,
    BootTarget,
    LoaderInstaller,
    NewDeployment,
)
from bootc.deploy.install.partition import Partition
from bootc.deploy.install.request import InstallRefused
from bootc.events import Event, Message
from bootc.formats.origin import BootRecord, BootType
from bootc.formats.osrelease import OsRelease
from bootc.fs.dir import Dir
from bootc.oci.pull import pull
from bootc.oci.source import open_source
from bootc.repository.repository import Repository
from support import firmware, osimages
from support.osimages import Channel, Images
from support.stored import IN_MEMORY

EFI = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
BIOS = ("usr/lib/grub/i386-pc/boot.img", "usr/bin/grub-mkimage")
ESP_FAT = "1234-ABCD"


class Installation:
    """A unified kernel image that is about to be installed on directories."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.boot, self.esp, self.image = (path / name for name in ("root/boot", "esp", "image"))
        for directory in (self.boot, self.esp, self.image):
            directory.mkdir(parents=True)
        images = Images(path / "images", BootType.UKI)
        channel = Channel(path / "channel", images, osimages.OLD)
        root = stack.enter_context(Dir.open(path / "root"))
        repository = stack.enter_context(Repository.create(root, secure=False))
        with open_source(channel.reference) as source:
            pulled = pull(repository, source)
        self.image_id = pulled.image_id
        resource = find_boot_resource(pulled.root)
        booting = Booting(self.image_id, resource, BootType.UKI, OsRelease({"ID": "x"}), None)
        mounted = stack.enter_context(Dir.open(self.image))
        self.deployment = NewDeployment(booting, pulled.root, mounted, repository, generic=True)
        self.target = BootTarget(
            disk="/dev/vda",
            root=root,
            root_uuid="1234",
            boot=stack.enter_context(Dir.open(self.boot)),
            boot_uuid="1234",
            esp=stack.enter_context(Dir.open(self.esp)),
            esp_uuid=ESP_FAT,
            esp_partition=Partition("/dev/vda2", "", 1 << 30, str(firmware.ESP)),
            bios_boot=Partition("/dev/vda1", "", 1 << 20, "", 2048, 2048),
        )

    def has(self, *paths: str) -> None:
        """Give the image these files."""
        for path in paths:
            (self.image / path).parent.mkdir(parents=True, exist_ok=True)
            (self.image / path).write_bytes(b"MZ\0/EFI/debian\0")

    def install(self, loader: LoaderInstaller) -> list[str]:
        """Install it, and return the messages."""
        events: list[Event] = []
        boot = loader.boot_dirs(self.target, BootType.UKI)
        loader.write_programs(self.deployment, self.target, boot, events.append)
        loader.write_kernel(self.deployment, boot)
        loader.commit(self.deployment, self.target, boot)
        return [event.text for event in events if isinstance(event, Message)]


@pytest.fixture
def installation() -> Iterator[Installation]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path, ExitStack() as stack:
        yield Installation(Path(path), stack)


def test_a_unified_kernel_image_is_on_the_esp_and_its_menu_in_boot(
    installation: Installation,
) -> None:
    loader = GrubUefiInstaller()
    loader.check_boot_type(BootType.UKI)
    installation.has(EFI)
    assert installation.install(loader) == []
    image_id, grub2 = installation.image_id, installation.boot / "grub2"
    uki = f"EFI/Linux/bootc/bootc_composefs-{image_id}.efi"
    assert (installation.esp / uki).exists()
    # Upstream's file, which has no line end.
    assert (grub2 / "efiuuid.cfg").read_text() == f'set EFI_PART_UUID="{ESP_FAT}"'
    menu = (grub2 / "user.cfg").read_text()
    assert f": ({image_id})" in menu
    assert f"chainloader /{uki}\n" in menu
    assert sorted(path.name for path in installation.boot.iterdir()) == ["grub2"]
    expected = BootRecord("grub", "uefi", str(firmware.ESP))
    assert loader.record(installation.target) == expected


def test_a_bios_cannot_start_the_unified_kernel_image_on_a_disk_for_any_machine(
    installation: Installation,
) -> None:
    installation.has(EFI, *BIOS)
    assert installation.install(GrubAnyInstaller()) == [
        "notice: A BIOS does not start the disk: it cannot start unified kernel images"
    ]


def test_a_disk_that_no_firmware_would_start_is_refused(installation: Installation) -> None:
    installation.has(*BIOS)
    with pytest.raises(
        InstallRefused, match="the image has no GRUB for UEFI, and a BIOS does not"
    ) as caught:
        installation.install(GrubAnyInstaller())
    assert (caught.value.hint or "").startswith("build the image with grub-efi-amd64-signed")
    assert list(installation.esp.iterdir()) == []
