"""A registry for tests that check signatures, and a machine that updates from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.formats.origin import BootType
from support import osimages
from support import skopeo as skopeos
from support.bench import Bench
from support.bootdirs import SYSTEMD
from support.osimages import Images
from testbed import registry


@pytest.fixture(scope="session")
def os_images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return Images(tmp_path_factory.mktemp("images"), BootType.BLS)


@pytest.fixture(scope="module")
def signatures_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registry.Registry]:
    """Run a registry, and have a skopeo use it that checks signatures."""
    top = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch, registry.running(top) as running:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        (top / "bin").mkdir()
        skopeos.checking_signatures(top / "bin", patch)
        yield running


@pytest.fixture
def signatures(signatures_registry: registry.Registry) -> registry.Registry:
    """Return the registry with its own configuration of skopeo."""
    assert signatures_registry.environment
    return signatures_registry


@pytest.fixture
def bench(os_images: Images, tmp_path: Path) -> Bench:
    return Bench(SYSTEMD, tmp_path, os_images, osimages.OLD)
