from __future__ import annotations

import pytest

from bootc.boot.loader import Bootloader
from bootc.boot.scheme import Scheme, addons_owner, artifact_name, uki_artifact
from bootc.formats.origin import BootType
from support.bootdirs import GRUB, GRUB_CC, GRUB_UKI, SYSTEMD, SYSTEMD_UKI

A = "ab" * 64


@pytest.mark.parametrize(
    ("scheme", "menu", "staged", "binaries", "path"),
    [
        (SYSTEMD, "loader/entries", "loader/entries.staged", "EFI/Linux", "/EFI/Linux/x"),
        (GRUB_CC, "loader/entries", "loader/entries.staged", "EFI/Linux", "/EFI/Linux/x"),
        (
            SYSTEMD_UKI,
            "loader/entries",
            "loader/entries.staged",
            "EFI/Linux/bootc",
            "/EFI/Linux/bootc/x",
        ),
        (GRUB, "loader/entries", "loader/entries.staged", ".", "/boot/x"),
        (
            GRUB_UKI,
            "grub2/user.cfg",
            "grub2/user.cfg.staged",
            "EFI/Linux/bootc",
            "/EFI/Linux/bootc/x",
        ),
        (
            Scheme(Bootloader.GRUB, BootType.BLS, separate_boot=True),
            "loader/entries",
            "loader/entries.staged",
            ".",
            "/x",
        ),
    ],
)
def test_paths(scheme: Scheme, menu: str, staged: str, binaries: str, path: str) -> None:
    assert (scheme.entries, scheme.staged, scheme.binaries) == (menu, staged, binaries)
    assert scheme.entry_path("x") == path


def test_which_file_system() -> None:
    places = {s: (s.menu_on_esp, s.binaries_on_esp) for s in (SYSTEMD, SYSTEMD_UKI, GRUB, GRUB_UKI)}
    assert places == {
        SYSTEMD: (True, True),
        SYSTEMD_UKI: (True, True),
        GRUB: (False, False),
        GRUB_UKI: (False, True),
    }


@pytest.mark.parametrize(
    ("scheme", "linux", "artifact"),
    [
        (SYSTEMD, f"/EFI/Linux/bootc_composefs-{A}/vmlinuz", A),
        (SYSTEMD, f"/EFI/Linux/{A}/vmlinuz", A),
        (SYSTEMD, f"/boot/bootc_composefs-{A}/vmlinuz", None),
        (SYSTEMD, "/EFI/Linux/6.12/vmlinuz", None),
        (GRUB, f"/boot/bootc_composefs-{A}/vmlinuz", A),
        (GRUB, f"/{A}/vmlinuz", A),
        (GRUB, f"/EFI/Linux/bootc_composefs-{A}/vmlinuz", None),
        (GRUB, "/vmlinuz", None),
    ],
)
def test_the_artifact_of_a_kernel(scheme: Scheme, linux: str, artifact: str | None) -> None:
    assert scheme.kernel_artifact(linux) == artifact


@pytest.mark.parametrize(
    ("path", "artifact"),
    [
        (f"/EFI/Linux/bootc/bootc_composefs-{A}.efi", A),
        (f"/EFI/Linux/bootc/{A}.efi", A),
        (f"/EFI/Linux/bootc/bootc_composefs-{A}+3.efi", A),
        (f"/EFI/Linux/bootc/{A}+2-1.efi", A),
        (f"/elsewhere/bootc_composefs-{A}.efi", A),
        (f"/elsewhere/{A}.efi", None),
        (f"/EFI/Linux/bootc/bootc_composefs-{A}", None),
        ("/EFI/Linux/bootc/bootc_composefs-12.efi", None),
        ("", None),
    ],
)
def test_the_artifact_of_an_efi_program(path: str, artifact: str | None) -> None:
    assert uki_artifact(path) == artifact


def test_names_of_artifacts() -> None:
    assert artifact_name(f"bootc_composefs-{A}") == artifact_name(f"{A}.efi") == A
    assert artifact_name("grub2") is None
    assert addons_owner(f"bootc_composefs-{A}.efi.extra.d") == A
    assert addons_owner(f"bootc_composefs-{A}+2-1.efi.extra.d") == A
    assert artifact_name(f"bootc_composefs-{A}+1") is None
    assert addons_owner("x.efi.extra.d") is None
    assert addons_owner(f"bootc_composefs-{A}.efi") is None
