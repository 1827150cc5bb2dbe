from __future__ import annotations

import pytest

from bootc.deploy.install.loader_ukiboot import NotUkiboot, UkibootInstaller, slot_directory
from bootc.deploy.install.request import InstallRefused
from bootc.formats.origin import BootType

LOADER = UkibootInstaller()


def text(*words: str) -> bytes:
    return b"MZ" + b"".join(f"\0{word}\0".encode("utf-16-le") for word in words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("ukibootctl", "EFI/BOOT", "Using uki pathname: %s", "EFIDebug"), "EFI/BOOT"),
        (("EFI\\fedora", "EFI\\fedora"), "EFI/fedora"),
    ],
)
def test_the_directory_of_the_slots_is_in_the_loader(words: tuple[str, ...], expected: str) -> None:
    assert slot_directory(text(*words)) == expected


@pytest.mark.parametrize("words", [(), ("EFI/BOOT", "EFI/fedora"), ("EFI/a/b",)])
def test_another_program_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(NotUkiboot, match="directories for its slots"):
        slot_directory(text(*words))


def test_the_partitions_grow_with_the_disk() -> None:
    def sizes(disk_mib: int) -> dict[str, int]:
        return {raw.name: raw.size_mib for raw in LOADER.raw_partitions(disk_mib)}

    assert sizes(4 << 10) == {"ukiboot_a": 192, "ukiboot_b": 192, "ukibootctl": 1}
    assert sizes(16 << 10) == {"ukiboot_a": 512, "ukiboot_b": 512, "ukibootctl": 1}


def test_a_bare_kernel_is_refused() -> None:
    LOADER.check_boot_type(BootType.UKI)
    with pytest.raises(InstallRefused, match="only unified kernel images"):
        LOADER.check_boot_type(BootType.BLS)


def test_every_file_of_the_package_is_needed() -> None:
    needs = {
        need.paths[0].rpartition("/")[2]: need.package for need in LOADER.image_needs("x86_64")
    }
    assert needs == dict.fromkeys(
        ("ukibootx64.efi", "slot_a.addon.efi", "slot_b.addon.efi"), "ukiboot"
    )
