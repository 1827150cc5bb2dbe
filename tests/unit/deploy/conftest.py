"""Machines that run NEW and can go back to OLD, each with its kind of boot menu."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.boot.scheme import Scheme
from bootc.formats.origin import BootType
from support import osimages
from support.bench import Bench
from support.bootdirs import GRUB_UKI, MENU_BOOT_TYPES, NONE_UKI, SYSTEMD, SYSTEMD_UKI, scheme_name
from support.osimages import Images
from support.stored import IN_MEMORY

SCHEMES = (SYSTEMD, SYSTEMD_UKI, GRUB_UKI, NONE_UKI)


@pytest.fixture
def top() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Path(path)


@pytest.fixture(scope="session")
def made() -> Iterator[dict[BootType, Images]]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield {kind: Images(Path(path, kind.value), kind) for kind in MENU_BOOT_TYPES}


@pytest.fixture
def bench(top: Path, made: dict[BootType, Images]) -> Bench:
    """Return a machine that runs NEW and can go back to OLD."""
    return Bench(SYSTEMD, top, made[BootType.BLS], osimages.OLD, osimages.NEW)


@pytest.fixture(params=SCHEMES, ids=scheme_name)
def any_bench(request: pytest.FixtureRequest, top: Path, made: dict[BootType, Images]) -> Bench:
    """Return the same with each kind of menu."""
    scheme: Scheme = request.param
    return Bench(scheme, top, made[scheme.boot_type], osimages.OLD, osimages.NEW)
