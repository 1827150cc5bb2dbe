"""A boot partition, and the objects that kernels are read from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot.scheme import BootDirs
from support.bootdirs import SYSTEMD, open_boot
from support.objectdir import ObjectDirectory


@pytest.fixture
def objects(tmp_path: Path) -> ObjectDirectory:
    (tmp_path / "objects").mkdir()
    return ObjectDirectory(tmp_path / "objects")


@pytest.fixture
def dirs(tmp_path: Path) -> Iterator[BootDirs]:
    with open_boot(tmp_path, SYSTEMD) as dirs:
        yield dirs
