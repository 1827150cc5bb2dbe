"""What tests of the installation to mounted file systems share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import images
from support.mountedtarget import INITRAMFS, KERNEL, Target, members, mounted_target


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """Mounted file systems, and a boot loader that is a fake."""
    with mounted_target(tmp_path, monkeypatch) as mounted:
        yield mounted


@pytest.fixture
def layout(tmp_path: Path) -> images.Layout:
    """An image with a kernel and an initramfs."""
    layer = images.bootable(*members(), kernel=KERNEL, initramfs=INITRAMFS)
    return images.single(tmp_path / "layout", layer)
