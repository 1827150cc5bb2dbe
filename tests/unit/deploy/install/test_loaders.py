from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path

import pytest

from bootc.deploy.install.config import InstallConfig
from bootc.deploy.install.loader_grub import GrubBiosInstaller, GrubUefiInstaller
from bootc.deploy.install.loader_installer import BootTarget, FirmwareType, LoaderInstaller
from bootc.deploy.install.loader_systemd_boot import SystemdBootInstaller
from bootc.deploy.install.loaders import choose_loader, finds_root_by_type, require_in_image
from bootc.deploy.install.partition import Partition
from bootc.deploy.install.request import FilesystemRequest, InstallRefused, InstallRequest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType
from bootc.fs.dir import Dir

UPDATES = "usr/lib/bootupd/updates"
IMAGE = ImageReference("registry", "example.com/os:1")
BOOT_IMAGE, MKIMAGE = "usr/lib/grub/i386-pc/boot.img", "usr/bin/grub-mkimage"
EFI_PROGRAM = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"


def request(bootloader: str | None) -> InstallRequest:
    return InstallRequest(source=IMAGE, target=IMAGE, bootloader=bootloader)


def choose(
    tmp_path: Path, asked: str | None, config: InstallConfig, *, uefi: bool = False
) -> LoaderInstaller:
    return choose_loader(request(asked), config, uefi=str(tmp_path if uefi else tmp_path / "none"))


@pytest.mark.parametrize(
    ("asked", "configured", "discoverable", "chosen", "by_type"),
    [
        (None, None, None, "systemd", False),
        ("systemd", "grub-cc", None, "systemd", True),
        (None, "systemd", None, "systemd", True),
        ("none", "systemd", None, "none", True),
        ("systemd", None, False, "systemd", False),
        (None, None, True, "systemd", True),
        ("grub", "systemd", None, "grub", False),
        (None, "grub", True, "grub", False),
    ],
)
def test_the_request_wins_over_the_configuration(
    tmp_path: Path,
    asked: str | None,
    configured: str | None,
    discoverable: bool | None,
    chosen: str,
    by_type: bool,
) -> None:
    config = InstallConfig(bootloader=configured, discoverable_partitions=discoverable)
    loader = choose(tmp_path, asked, config)
    assert loader.name == chosen
    assert finds_root_by_type(loader, request(asked), config) is by_type


def test_a_loader_that_this_version_lacks_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(InstallRefused, match="grub-cc is not supported yet") as caught:
        choose(tmp_path, "grub-cc", InstallConfig())
    assert caught.value.hint == "use --bootloader systemd"


@pytest.mark.parametrize("uefi", [False, True])
def test_the_firmware_decides_which_grub(tmp_path: Path, uefi: bool) -> None:
    loader = choose(tmp_path, "grub", InstallConfig(), uefi=uefi)
    assert isinstance(loader, GrubUefiInstaller if uefi else GrubBiosInstaller)
    assert loader.needs_esp is uefi
    # systemd-boot has one form, also where it is installed for another machine.
    assert choose(tmp_path, "systemd", InstallConfig(), uefi=uefi).name == "systemd"


@pytest.mark.parametrize("uefi", [False, True])
def test_mounted_file_systems_for_any_machine_have_grub_for_uefi(
    tmp_path: Path, uefi: bool
) -> None:
    generic = FilesystemRequest(
        source=IMAGE, target=IMAGE, bootloader="grub", generic_image=True, root="/mnt"
    )
    directory = tmp_path if uefi else tmp_path / "none"
    loader = choose_loader(generic, InstallConfig(), uefi=str(directory))
    assert loader.firmwares == (FirmwareType.UEFI,)


@pytest.mark.parametrize("uefi", [False, True])
def test_a_disk_for_any_machine_has_grub_for_both(tmp_path: Path, uefi: bool) -> None:
    generic = dataclasses.replace(request("grub"), generic_image=True)
    directory = tmp_path if uefi else tmp_path / "none"
    loader = choose_loader(generic, InstallConfig(), uefi=str(directory))
    assert loader.firmwares == (FirmwareType.UEFI, FirmwareType.BIOS)
    for present in (BOOT_IMAGE, EFI_PROGRAM):
        require_in_image(loader, "x86_64", {present}.intersection, installs_itself=False)
    with pytest.raises(InstallRefused, match="it has no /usr/lib/grub") as caught:
        require_in_image(loader, "x86_64", lambda _: (), installs_itself=False)
    assert "build it with grub-efi-amd64-signed, or" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("present", "packages"),
    [
        ((BOOT_IMAGE, MKIMAGE), None),
        ((MKIMAGE,), "grub-pc-bin"),
        ((BOOT_IMAGE,), "grub-common"),
        ((), "grub-pc-bin, grub-common"),
    ],
)
def test_an_image_without_grub_is_refused_with_the_package(
    present: tuple[str, ...], packages: str | None
) -> None:
    if packages is None:
        require_in_image(GrubBiosInstaller(), "x86_64", lambda _: present, installs_itself=False)
        return
    with pytest.raises(InstallRefused, match="the image cannot install GRUB for BIOS") as caught:
        require_in_image(GrubBiosInstaller(), "x86_64", lambda _: present, installs_itself=False)
    assert f"build it with {packages}, or" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("present", "lacks", "packages"),
    [
        (("usr/bin/bootupctl", UPDATES), None, None),
        (("usr/bin/bootupctl", UPDATES, EFI_PROGRAM), None, None),
        ((EFI_PROGRAM, UPDATES), None, None),
        ((UPDATES,), "/usr/bin/bootupctl", "bootupd"),
        (("usr/bin/bootupctl",), f"/{UPDATES}", "bootupd"),
        ((), f"/{EFI_PROGRAM}", "grub-efi-amd64-signed"),
    ],
)
def test_bootupd_or_the_packages_of_debian(
    present: tuple[str, ...], lacks: str | None, packages: str | None
) -> None:
    loader = GrubUefiInstaller()

    def has(paths: Collection[str]) -> Collection[str]:
        return [path for path in paths if path in present]

    if lacks is None:
        found = require_in_image(loader, "x86_64", has, installs_itself=False)
        assert set(found) == set(present)
        by_bootupd = {"usr/bin/bootupctl", UPDATES} <= set(present)
        assert loader.is_by_bootupd(found.__contains__) is by_bootupd
        title = "GRUB for UEFI by bootupd" if by_bootupd else "GRUB for UEFI"
        assert loader.title_in(found.__contains__) == title
        return
    with pytest.raises(InstallRefused) as caught:
        require_in_image(loader, "x86_64", has, installs_itself=False)
    assert caught.value.message == f"the image cannot install GRUB for UEFI: it has no {lacks}"
    assert (caught.value.hint or "").startswith(f"build it with {packages}, or")


def test_systemd_boot_of_the_installing_system() -> None:
    # Nothing is read if bootctl can take the program of another system.
    require_in_image(SystemdBootInstaller(), "x86_64", pytest.fail, installs_itself=False)
    with pytest.raises(InstallRefused, match="cannot install systemd-boot") as caught:
        require_in_image(SystemdBootInstaller(), "x86_64", lambda _: (), installs_itself=True)
    assert "build it with systemd-boot-efi" in (caught.value.hint or "")


def test_grub_starts_no_unified_kernel_image() -> None:
    GrubBiosInstaller().check_boot_type(BootType.BLS)
    with pytest.raises(InstallRefused, match="boots by a unified kernel image"):
        GrubBiosInstaller().check_boot_type(BootType.UKI)


def test_an_argument_that_grub_would_change_is_refused() -> None:
    GrubBiosInstaller().check_kernel_arguments(('a="b c"', "quiet"))
    with pytest.raises(InstallRefused, match=r"cannot pass on the kernel argument 'a=.*b'"):
        GrubBiosInstaller().check_kernel_arguments(("quiet", "a=\\b"))


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
