"""GRUB's own parser takes the scripts that bootc writes."""

from __future__ import annotations

from pathlib import Path

from bootc.boot import grub
from support import grubtree


def test_scripts(tmp_path: Path) -> None:
    for name, text in (
        ("static", grub.static_config(["console=ttyS0"])),
        ("early", grub.early_config("1234", separate_boot=False)),
    ):
        path = tmp_path / name
        path.write_bytes(text)
        grubtree.check_script(path)
