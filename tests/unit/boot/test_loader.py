from __future__ import annotations

from pathlib import Path

import pytest

from bootc.boot.loader import LOADER_GUID, Bootloader, identify, running_bootloader


@pytest.mark.parametrize(
    ("text", "bootloader"),
    [
        ("systemd-boot 257.8-1", Bootloader.SYSTEMD),
        ("SYSTEMD-BOOT", Bootloader.SYSTEMD),
        ("GRUB CC 2.12", Bootloader.GRUB_CC),
        ("GRUB 2.12", Bootloader.GRUB),
        ("rEFInd", Bootloader.GRUB),
    ],
)
def test_identify(text: str, bootloader: Bootloader) -> None:
    assert identify(f"{text}\0".encode("utf-16-le")) is bootloader


def test_odd_bytes_are_no_failure() -> None:
    assert identify("systemd-boot".encode("utf-16-le") + b"\0") is Bootloader.SYSTEMD
    assert identify(b"\xff\xd8\xff") is Bootloader.GRUB


def test_the_running_one_is_read_from_the_firmware(tmp_path: Path) -> None:
    assert running_bootloader(efivars_root=str(tmp_path)) is Bootloader.GRUB
    variable = tmp_path / f"LoaderInfo-{LOADER_GUID}"
    variable.write_bytes(b"\x06\0\0\0" + "systemd-boot 257".encode("utf-16-le"))
    assert running_bootloader(efivars_root=str(tmp_path)) is Bootloader.SYSTEMD
