"""Debian's GRUB takes what bootc writes, and bootc reads what Debian built."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.boot import grub
from bootc.formats.grubefi import configuration_directory
from support import grubtree


def test_scripts(tmp_path: Path) -> None:
    for name, text in (
        ("static", grub.static_config(["console=ttyS0"])),
        ("early", grub.early_config("1234", separate_boot=False)),
    ):
        path = tmp_path / name
        path.write_bytes(text)
        grubtree.check_script(path)


@pytest.mark.parametrize(
    "path", ["x86_64-efi-signed/grubx64.efi.signed", "x86_64-efi/monolithic/grubx64.efi"]
)
def test_the_directory_of_its_programs(path: str) -> None:
    program = (grubtree.find() / "usr/lib/grub" / path).read_bytes()
    assert configuration_directory(program) == "EFI/debian"
