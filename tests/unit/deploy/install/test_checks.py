from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from bootc.deploy.install.checks import Decisions, check_platform, needed_mib
from bootc.deploy.install.filesystem import Filesystem
from bootc.deploy.install.loader_systemd_boot import SystemdBootInstaller
from bootc.formats import ocispec
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import ImageSpecError, WrongArchitecture
from bootc.oci.source import Source, open_source
from support import images

DECISIONS = Decisions("x86_64", SystemdBootInstaller(), Filesystem.EXT4, False, ())


class Documents:
    """An image of which only the documents are read."""

    def __init__(self, manifest_raw: bytes, config_raw: bytes) -> None:
        self.manifest_raw = manifest_raw
        self.config_raw = config_raw


def check(manifest_raw: bytes, config_raw: bytes) -> None:
    check_platform(DECISIONS, cast(Source, Documents(manifest_raw, config_raw)))


def manifest(**changes: Any) -> bytes:
    config = {"mediaType": ocispec.CONFIG, "digest": f"sha256:{'0' * 64}", "size": 2}
    return json.dumps({"schemaVersion": 2, "config": config, "layers": [], **changes}).encode()


def config(**changes: Any) -> bytes:
    rootfs = {"type": "layers", "diff_ids": []}
    value = {"architecture": "amd64", "os": "linux", "rootfs": rootfs, **changes}
    return json.dumps(value).encode()


def test_an_image_for_this_machine() -> None:
    check(manifest(), config())


def test_an_image_for_another_machine() -> None:
    with pytest.raises(WrongArchitecture, match="arm64"):
        check(manifest(), config(architecture="arm64"))


@pytest.mark.parametrize(
    ("manifest_raw", "config_raw"),
    [(b"{", config()), (manifest(layers=None), config()), (manifest(), b"[]")],
)
def test_an_image_that_is_none(manifest_raw: bytes, config_raw: bytes) -> None:
    with pytest.raises(ImageSpecError):
        check(manifest_raw, config_raw)


def test_the_room_for_an_image(tmp_path: Path) -> None:
    layout = images.single(tmp_path / "layout", images.layer(images.file("a", bytes(3 << 20))))
    with open_source(ImageReference.parse(layout.reference())) as source:
        layer_mib = -(-source.layers[0].size_bytes >> 20)
        assert needed_mib(source) in (layer_mib + 256, layer_mib + 257)
