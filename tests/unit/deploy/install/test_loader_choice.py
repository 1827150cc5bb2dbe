from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from bootc.deploy.install.config import InstallConfig
from bootc.deploy.install.loader_choice import with_found_loader
from bootc.deploy.install.request import ANY_UKI, InstallRefused, InstallRequest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType

IMAGE = ImageReference("registry", "example.com/os:1")
SYSTEMD = "usr/lib/systemd/boot/efi/systemd-bootx64.efi.signed"
SYSTEMD_ARM = "usr/lib/systemd/boot/efi/systemd-bootaa64.efi"
GRUB = ("usr/lib/grub/i386-pc/boot.img", "usr/bin/grub-mkimage")
EFI_GRUB = "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"
BOOTUPD = ("usr/bin/bootupctl", "usr/lib/bootupd/updates")
#: The loaders of each firmware, and no other.
UEFI, BIOS, GENERIC = "UEFI", "BIOS", "generic image"


def find_in(*present: str) -> Callable[..., Collection[str]]:
    def find(paths: Collection[str], until: Callable[[Collection[str]], bool]) -> Collection[str]:
        return {path for path in paths if path in present}

    return find


def choose(
    tmp_path: Path,
    firmware: str,
    *present: str,
    machine: str = "x86_64",
    boot_type: BootType | None = None,
) -> tuple[str, str]:
    request = InstallRequest(
        source=IMAGE, target=IMAGE, generic_image=firmware == GENERIC, boot_type=boot_type
    )
    uefi = tmp_path if firmware == UEFI else tmp_path / "none"
    find = find_in(*present)
    found = with_found_loader(request, InstallConfig(), machine, find, uefi=str(uefi))
    assert found.found_loader is not None
    return found.found_loader


@pytest.mark.parametrize(
    ("firmware", "present", "chosen"),
    [
        (UEFI, (SYSTEMD,), "systemd"),
        (UEFI, (SYSTEMD, *GRUB, ANY_UKI), "systemd"),
        (UEFI, (ANY_UKI,), "none"),
        (GENERIC, (SYSTEMD, *GRUB), "systemd"),
        (GENERIC, GRUB, "grub"),
        (GENERIC, (GRUB[1], ANY_UKI), "none"),
        (GENERIC, (EFI_GRUB,), "grub"),
        (UEFI, (EFI_GRUB, ANY_UKI), "grub"),
        (UEFI, (*GRUB, ANY_UKI), "none"),
        (BIOS, (SYSTEMD, *GRUB), "grub"),
        (BIOS, (*GRUB, ANY_UKI), "grub"),
        # An image like Fedora's.
        (UEFI, BOOTUPD, "grub"),
        (BIOS, BOOTUPD, "grub"),
        (GENERIC, BOOTUPD, "grub"),
        (UEFI, (*BOOTUPD, SYSTEMD, ANY_UKI), "systemd"),
        (UEFI, (*BOOTUPD, ANY_UKI), "grub"),
        (UEFI, (BOOTUPD[0], ANY_UKI), "none"),
        (UEFI, (BOOTUPD[1], ANY_UKI), "none"),
    ],
)
def test_what_the_image_has(
    tmp_path: Path, firmware: str, present: tuple[str, ...], chosen: str
) -> None:
    assert choose(tmp_path, firmware, *present)[0] == chosen


def test_the_reason(tmp_path: Path) -> None:
    assert choose(tmp_path, UEFI, SYSTEMD)[1] == "the image has it"
    assert choose(tmp_path, BIOS, *GRUB)[1] == "the image has it, and this machine has a BIOS"
    assert choose(tmp_path, UEFI, ANY_UKI)[1] == (
        "the image has a unified kernel image and no boot loader"
    )


def test_another_architecture(tmp_path: Path) -> None:
    # No loader here starts an ARM machine with a BIOS.
    assert choose(tmp_path, BIOS, SYSTEMD_ARM, machine="aarch64")[0] == "systemd"


@pytest.mark.parametrize(
    ("firmware", "present", "boot_type", "packages"),
    [
        (UEFI, (), None, "systemd-boot-efi"),
        (UEFI, (ANY_UKI,), BootType.BLS, "systemd-boot-efi"),
        (BIOS, (SYSTEMD, ANY_UKI), None, "grub-pc-bin and grub-common"),
        (BIOS, (SYSTEMD, GRUB[0]), None, "grub-pc-bin and grub-common"),
    ],
)
def test_an_image_without_a_loader_for_the_machine(
    tmp_path: Path,
    firmware: str,
    present: tuple[str, ...],
    boot_type: BootType | None,
    packages: str,
) -> None:
    with pytest.raises(InstallRefused, match="the image has no boot loader for") as caught:
        choose(tmp_path, firmware, *present, boot_type=boot_type)
    hint = caught.value.hint or ""
    assert packages in hint
    # ukiboot has three files of one package.
    assert "ukiboot and ukiboot" not in hint


@pytest.mark.parametrize(("asked", "configured"), [("none", None), (None, "systemd")])
def test_a_named_loader_is_taken_unseen(asked: str | None, configured: str | None) -> None:
    request = InstallRequest(source=IMAGE, target=IMAGE, bootloader=asked)
    config = InstallConfig(bootloader=configured)
    assert with_found_loader(request, config, "x86_64", pytest.fail) is request


def test_the_search_ends_with_the_first_of_the_list(tmp_path: Path) -> None:
    def find(paths: Collection[str], until: Callable[[Collection[str]], bool]) -> Collection[str]:
        assert set(paths) >= {SYSTEMD, GRUB[0], EFI_GRUB, ANY_UKI}
        assert not until({*GRUB, ANY_UKI})
        assert until({SYSTEMD})
        return {SYSTEMD}

    request = InstallRequest(source=IMAGE, target=IMAGE, generic_image=True)
    found = with_found_loader(request, InstallConfig(), "x86_64", find, uefi=str(tmp_path))
    assert found.found_loader == ("systemd", "the image has it")


def test_the_search_ends_when_it_is_known_who_installs_grub(tmp_path: Path) -> None:
    def find(paths: Collection[str], until: Callable[[Collection[str]], bool]) -> Collection[str]:
        assert not until(GRUB)
        assert until(BOOTUPD)
        return BOOTUPD

    request = InstallRequest(source=IMAGE, target=IMAGE)
    uefi = str(tmp_path / "none")
    found = with_found_loader(request, InstallConfig(), "x86_64", find, uefi=uefi)
    assert found.found_files == frozenset(BOOTUPD)
