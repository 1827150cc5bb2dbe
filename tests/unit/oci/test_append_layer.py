"""The documents of an image with a layer more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bootc.formats import ocispec
from bootc.formats.digest import OciDigest
from bootc.formats.ocispec import Descriptor, ImageConfig, ImageSpecError, Manifest
from bootc.oci.append_layer import (
    TAR_LAYER,
    AppendedLayer,
    config_with_layer,
    manifest_with_layer,
)
from support import images

DATA = images.layer(images.file("new", b"new"))
DIGEST = OciDigest.of(DATA)
LAYER = AppendedLayer(
    Descriptor(TAR_LAYER, DIGEST, len(DATA), {}), DIGEST, "2009-02-13T23:31:30Z", "seal"
)


def documents(path: Path, **options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    layout = images.single(path, images.bootable(), **options)
    with images.opened(layout) as source:
        raw = config_with_layer(source.config_raw, LAYER)
        config = Descriptor(ocispec.CONFIG, OciDigest.of(raw), len(raw), {})
        annotations = Manifest.parse(source.manifest_raw).annotations
        manifest = manifest_with_layer(source, annotations, config, LAYER)
        # The same image gives the same bytes, and others can read them.
        assert config_with_layer(source.config_raw, LAYER) == raw
        assert ImageConfig.parse(raw).diff_ids[-1] == DIGEST
        assert Manifest.parse(manifest).layers[:-1] == source.layers or "manifest" in options
    return json.loads(raw), json.loads(manifest)


def test_everything_else_is_kept(tmp_path: Path) -> None:
    history = [{"created_by": "a"}, {"created_by": "b", "empty_layer": True}]
    own = {"created": "2026-01-01T00:00:00Z", "history": history, "x": {"y": [1, "\u00e9"]}}
    notes = {"a.b": "c", "composefs.merged.erofs.v1.fsverity-sha512-12": "ab"}
    config, manifest = documents(tmp_path / "l", config=own, manifest={"annotations": notes})
    assert config["history"] == [
        *history,
        {"created": "2009-02-13T23:31:30Z", "created_by": "seal"},
    ]
    assert (config["created"], config["x"]) == (own["created"], own["x"])
    assert config["config"] == {"Labels": {"containers.bootc": "1"}}
    # A digest of the old image would be wrong.
    assert manifest["annotations"] == {"a.b": "c"}
    assert manifest["layers"][-1] == {
        "mediaType": TAR_LAYER,
        "digest": str(DIGEST),
        "size": len(DATA),
    }


def test_an_image_without_history_gets_none(tmp_path: Path) -> None:
    config, manifest = documents(tmp_path / "layout")
    assert "history" not in config
    assert "annotations" not in manifest


@pytest.mark.parametrize(
    ("docker", "oci"),
    [
        ("diff.tar", TAR_LAYER),
        ("diff.tar.gzip", f"{TAR_LAYER}+gzip"),
        ("diff.tar.zstd", f"{TAR_LAYER}+zstd"),
        ("foreign.diff.tar.gzip", f"{TAR_LAYER}+gzip"),
    ],
)
def test_the_types_of_docker(tmp_path: Path, docker: str, oci: str) -> None:
    layout = images.Layout(tmp_path / "layout")
    layer = layout.blob(images.bootable(), f"application/vnd.docker.image.rootfs.{docker}")
    top = "application/vnd.docker.distribution.manifest.v2+json"
    _, manifest = documents(tmp_path / "l", manifest={"mediaType": top, "layers": [layer]})
    assert manifest["mediaType"] == ocispec.MANIFEST
    assert manifest["layers"][0] == {**layer, "mediaType": oci}


def test_a_history_that_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(ImageSpecError, match="history: not a list"):
        documents(tmp_path / "layout", config={"history": {}})
