from __future__ import annotations

from pathlib import Path

import pytest

from bootc.deploy.install import checks, to_filesystem
from bootc.deploy.install.config import InstallConfig
from bootc.deploy.install.loader_grub import GrubBiosInstaller
from bootc.deploy.install.loader_installer import LoaderInstaller
from bootc.deploy.install.loader_ukiboot import UkibootInstaller
from bootc.deploy.install.request import FilesystemRequest, InstallRefused, Replace
from bootc.formats.imgref import ImageReference

IMAGE = ImageReference("registry", "example.com/os:1")


@pytest.mark.parametrize(
    "loader", [GrubBiosInstaller(), UkibootInstaller()], ids=["grub-bios", "ukiboot"]
)
def test_a_loader_with_a_partition_of_its_own_is_refused_before_anything_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loader: LoaderInstaller
) -> None:
    """Later than that, the old boot loader would be removed already."""
    monkeypatch.setattr(checks, "require_root", lambda: None)
    monkeypatch.setattr(to_filesystem, "choose_loader", lambda request, config: loader)
    request = FilesystemRequest(
        source=IMAGE, target=IMAGE, root=str(tmp_path), replace=Replace.ALONGSIDE
    )
    with pytest.raises(InstallRefused, match=f"{loader.title} .* to-filesystem makes none") as it:
        to_filesystem.plan_filesystem(request, InstallConfig(), "x86_64")
    assert it.value.hint == "use bootc install to-disk, or another --bootloader"
