from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bootc.deploy.install.config import InstallConfig
from bootc.deploy.install.loader_installer import BootTarget
from bootc.deploy.install.loaders import choose_loader, finds_root_by_type
from bootc.deploy.install.partition import Partition
from bootc.deploy.install.request import InstallRefused, InstallRequest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType
from bootc.fs.dir import Dir

IMAGE = ImageReference("registry", "example.com/os:1")


def request(bootloader: str | None) -> InstallRequest:
    return InstallRequest(source=IMAGE, target=IMAGE, bootloader=bootloader)


@pytest.mark.parametrize(
    ("asked", "configured", "discoverable", "chosen", "by_type"),
    [
        (None, None, None, "systemd", False),
        ("systemd", "grub-cc", None, "systemd", True),
        (None, "systemd", None, "systemd", True),
        ("systemd", None, False, "systemd", False),
        (None, None, True, "systemd", True),
    ],
)
def test_the_request_wins_over_the_configuration(
    asked: str | None,
    configured: str | None,
    discoverable: bool | None,
    chosen: str,
    by_type: bool,
) -> None:
    config = InstallConfig(bootloader=configured, discoverable_partitions=discoverable)
    loader = choose_loader(request(asked), config)
    assert loader.name == chosen
    assert finds_root_by_type(loader, request(asked), config) is by_type


def test_an_unknown_loader_is_refused_with_a_way_out() -> None:
    with pytest.raises(InstallRefused, match="grub-cc is not supported yet") as caught:
        choose_loader(request("grub-cc"), InstallConfig())
    assert caught.value.hint == "use --bootloader systemd"


def test_the_menu_is_on_the_extended_boot_loader_partition(tmp_path: Path) -> None:
    with Dir.open(tmp_path) as esp, Dir.open(tmp_path) as boot, Dir.open(tmp_path) as root:
        partition = Partition("/dev/vda1", "", 1 << 20)
        target = BootTarget("/dev/vda", root, "", root, "", esp=esp, esp_partition=partition)
        loader = choose_loader(request(None), InstallConfig())
        dirs = loader.boot_dirs(target, BootType.BLS)
        assert (dirs.menu, dirs.binaries, dirs.programs) == (esp, esp, None)
        beside = dataclasses.replace(target, xbootldr=boot)
        dirs = loader.boot_dirs(beside, BootType.UKI)
        assert (dirs.menu, dirs.binaries, dirs.programs) == (boot, boot, esp)
