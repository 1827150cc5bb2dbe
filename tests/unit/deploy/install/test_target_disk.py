from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.deploy.install.request import InstallRefused
from bootc.deploy.install.target_disk import Device, check_may_be_written, inspect


@pytest.mark.parametrize("kind", ["file", "directory", "character device"])
def test_what_is_no_block_device(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "x")
    if kind == "file":
        (tmp_path / "x").write_bytes(b"")
    elif kind == "directory":
        (tmp_path / "x").mkdir()
    else:
        path = os.devnull
    with pytest.raises(InstallRefused, match=f"^Not a block device: {path}$"):
        inspect(path)


def test_nothing_of_that_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        inspect(str(tmp_path / "vdz"))
    assert caught.value.filename == str(tmp_path / "vdz")


def test_read_only_disks() -> None:
    disk = Device("/dev/sr0", "rom", 1 << 30, True, None, None, ())
    with pytest.raises(InstallRefused, match=r"^Device /dev/sr0 is read-only$"):
        check_may_be_written(disk, wipe=True, machine="x86_64")
