"""Machines that were never cleaned up."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.deploy import finalize, upgrade
from bootc.formats.origin import BootType
from support import osimages
from support.bench import Bench
from support.bootdirs import SYSTEMD
from support.osimages import Images
from support.protection import unprotect
from support.stored import IN_MEMORY


@pytest.fixture(scope="module")
def images() -> Iterator[Images]:
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as path:
        yield Images(Path(path), BootType.BLS)


@pytest.fixture
def bench(tmp_path: Path, images: Images) -> Iterator[Bench]:
    """Return a machine that runs OLD."""
    yield Bench(SYSTEMD, tmp_path, images, osimages.OLD)
    unprotect(tmp_path)


@pytest.fixture
def untidy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a machine that runs RENAMED, and where nothing was ever cleaned up.

    The power failed when OLD was staged for the second time.
    """
    with monkeypatch.context() as patch:
        patch.setattr(upgrade, "collect_afterwards", lambda *args: None)
        patch.setattr(finalize, "clean_up", lambda *args, **more: None)
        for image in (osimages.NEW, osimages.TURNED, osimages.RENAMED):
            bench.update(image)
        bench.upgrade(osimages.OLD)
    bench.machine.start()
    return bench
