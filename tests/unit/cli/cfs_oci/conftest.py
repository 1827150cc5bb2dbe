"""A repository into which an image was pulled."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import images
from support.cfs import Cfs
from support.ociverbs import BASE, TOP


@pytest.fixture
def layout(tmp_path: Path) -> images.Layout:
    return images.single(tmp_path / "layout", BASE, TOP, config={"created": "2026-01-02T03:04:05Z"})


@pytest.fixture
def cfs(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Cfs:
    cfs = Cfs(tmp_path / "repo", capsysbinary, monkeypatch)
    cfs("init", "--insecure")
    return cfs


@pytest.fixture
def pulled(cfs: Cfs, layout: images.Layout) -> Cfs:
    cfs("oci", "pull", layout.reference(), "os")
    return cfs
