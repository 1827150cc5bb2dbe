from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.boot.systemd_boot import installed_version, program_version
from bootc.fs.dir import Dir


@pytest.mark.parametrize(
    ("program", "version"),
    [
        (b"MZ\0#### LoaderInfo: systemd-boot 257.9-1~deb13u1 ####\0\0", 257),
        (b"#### LoaderInfo: systemd-boot 258 ####", 258),
        (b"#### LoaderInfo: systemd-boot 261~rc1 ####", 261),
        (b"#### LoaderInfo: systemd-stub 257 ####", 0),
        (b"#### LoaderInfo: systemd-boot v257 ####", 0),
        (b"#### LoaderInfo: systemd-boot 257", 0),
        (b"#### LoaderInfo: systemd-boot " + b"9" * 5000 + b" ####", 0),
        (b"", 0),
    ],
)
def test_a_program_says_its_version(program: bytes, version: int) -> None:
    assert program_version(program) == version


def test_the_oldest_program_on_the_esp_counts(tmp_path: Path) -> None:
    home = tmp_path / "EFI/systemd"
    with Dir.open(tmp_path) as esp:
        assert installed_version(esp) == 0
        home.mkdir(parents=True)
        assert installed_version(esp) == 0
        (home / "systemd-bootx64.efi").write_bytes(b"#### LoaderInfo: systemd-boot 259 ####")
        (home / "notes.txt").write_bytes(b"#### LoaderInfo: systemd-boot 1 ####")
        assert installed_version(esp) == 259
        (home / "SYSTEMD-BOOTIA32.EFI").write_bytes(b"#### LoaderInfo: systemd-boot 254.1 ####")
        assert installed_version(esp) == 254


def test_a_program_that_cannot_be_read_is_of_no_known_version(tmp_path: Path) -> None:
    home = tmp_path / "EFI/systemd"
    home.mkdir(parents=True)
    (home / "systemd-bootx64.efi").touch()
    os.truncate(home / "systemd-bootx64.efi", 1 << 30)
    with Dir.open(tmp_path) as esp:
        assert installed_version(esp) == 0
