"""Which files on an ESP are programs of a boot loader, and which of them the firmware starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.boot.loader import Bootloader
from bootc.boot.loader_programs import program_files, started_program
from bootc.fs.dir import Dir

SYSTEMD_BOOT = {
    "EFI/systemd/systemd-bootx64.efi": b"",
    "EFI/BOOT/BOOTX64.EFI": b"",
    "loader/loader.conf": b"",
    "loader/keys/auto/db.auth": b"",
}
GRUB = {
    "EFI/BOOT/BOOTX64.EFI": b"shim",
    "EFI/BOOT/grubx64.efi": b"MZ\0/EFI/debian\0",
    "EFI/debian/grub.cfg": b"",
    "EFI/debian/grubx64.efi": b"",
    "EFI/debian/shimx64.efi": b"",
}
WITHOUT_SHIM = {
    "EFI/BOOT/BOOTX64.EFI": b"MZ\0/EFI/debian\0",
    "EFI/debian/grub.cfg": b"",
    "EFI/debian/grubx64.efi": b"",
}
GENERIC = {name: GRUB[name] for name in list(GRUB)[:3]}
OTHERS = (
    "EFI/Microsoft/bootmgfw.efi",
    "EFI/Linux/bootc/x.efi",
    "EFI/systemd/.tmp-file-systemd-bootx64.efi",
    "loader/random-seed",
    "loader/entries/x.conf",
)


@pytest.mark.parametrize(
    ("loader", "files", "started"),
    [
        (
            Bootloader.SYSTEMD,
            SYSTEMD_BOOT,
            ("EFI/systemd/systemd-bootx64.efi", "Linux Boot Manager"),
        ),
        (Bootloader.SYSTEMD, {}, None),
        (Bootloader.GRUB, GRUB, ("EFI/debian/shimx64.efi", "debian")),
        (Bootloader.GRUB, WITHOUT_SHIM, ("EFI/debian/grubx64.efi", "debian")),
        (Bootloader.GRUB, GENERIC, None),
        (Bootloader.GRUB, {}, None),
        (Bootloader.UKIBOOT, {}, None),
    ],
)
def test_the_programs_of_a_loader(
    tmp_path: Path,
    loader: Bootloader,
    files: dict[str, bytes],
    started: tuple[str, str] | None,
) -> None:
    for path, data in (files | dict.fromkeys(OTHERS, b"")).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    with Dir.open(tmp_path) as esp:
        found = program_files(loader, esp)
        assert sorted(found) == sorted(files)
        # What the firmware starts by itself comes last.
        assert [path.startswith("EFI/BOOT/") for path in found] == sorted(
            path.startswith("EFI/BOOT/") for path in found
        )
        assert started_program(loader, esp) == started


@pytest.mark.parametrize("started", [None, ("EFI/BOOT/BOOTX64.EFI", "bootc")])
def test_without_a_loader_the_firmware_starts_the_fallback(
    tmp_path: Path, started: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bootc.boot.loader_programs.FALLBACK", "EFI/BOOT/BOOTX64.EFI")
    if started is not None:
        (tmp_path / "EFI/BOOT").mkdir(parents=True)
        (tmp_path / started[0]).touch()
    with Dir.open(tmp_path) as esp:
        assert program_files(Bootloader.NONE, esp) == ()
        assert started_program(Bootloader.NONE, esp) == started
