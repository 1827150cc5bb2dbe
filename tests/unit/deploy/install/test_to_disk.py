from __future__ import annotations

import pytest

from bootc.deploy.install import checks, to_disk
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.loader_systemd_boot import SystemdBootInstaller
from bootc.deploy.install.request import InstallRequest
from bootc.deploy.install.target_disk import Device
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import Signature
from bootc.oci.sigpolicy import PolicyNotEnforced

REGISTRY = ImageReference("registry", "example.com/os:1")
LAYOUT = ImageReference("oci", "/media/os:1")


@pytest.mark.parametrize(("source", "target"), [(LAYOUT, REGISTRY), (REGISTRY, LAYOUT)])
def test_signatures_that_nobody_would_check_are_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, source: ImageReference, target: ImageReference
) -> None:
    decisions = Decisions(
        device=Device("/dev/none", "disk", 8 << 30, False, None, None, ()),
        machine="x86_64",
        loader=SystemdBootInstaller(),
        filesystem=Filesystem.EXT4,
        discoverable=False,
        allow_missing_verity=False,
        root_size_mib=None,
        kargs=(),
        signature=Signature(),
    )
    monkeypatch.setattr(checks, "check_host", lambda *_: decisions)
    monkeypatch.setattr(to_disk, "read_config", lambda *_: None)
    with pytest.raises(PolicyNotEnforced, match=f"cannot be enforced for {LAYOUT}"):
        to_disk.install_to_disk(InstallRequest("/dev/none", source, target), pytest.fail)
