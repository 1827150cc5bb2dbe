from __future__ import annotations

import json
from typing import Any

import pytest

from bootc.formats import ocispec
from bootc.formats.digest import OciDigest
from bootc.formats.ocispec import (
    ImageConfig,
    ImageSpecError,
    Index,
    Manifest,
    Platform,
    WrongArchitecture,
    go_architecture,
)

DIGEST = "sha256:" + "ab" * 32
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def blob(media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": DIGEST, "size": 5, **more}


def manifest(**more: Any) -> bytes:
    return json.dumps(
        {"schemaVersion": 2, "config": blob(ocispec.CONFIG), "layers": [blob(LAYER)], **more}
    ).encode()


def config(**more: Any) -> bytes:
    value = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
        **more,
    }
    return json.dumps(value).encode()


def index(*manifests: Any, **more: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": manifests, **more}).encode()


def test_manifest() -> None:
    parsed = Manifest.parse(
        manifest(
            mediaType=ocispec.MANIFEST,
            layers=[blob(LAYER, size=0), blob(LAYER, annotations={"a": "b"})],
            annotations={"x": "y"},
            unknown=[{}],
        )
    )
    assert parsed.config.digest == OciDigest.parse(DIGEST)
    assert parsed.config.media_type == ocispec.CONFIG
    assert [layer.size_bytes for layer in parsed.layers] == [0, 5]
    assert parsed.layers[1].annotations == {"a": "b"}
    assert parsed.annotations == {"x": "y"}


def test_docker_manifest() -> None:
    prefix = "application/vnd.docker."
    parsed = Manifest.parse(
        manifest(
            mediaType=f"{prefix}distribution.manifest.v2+json",
            config=blob(f"{prefix}container.image.v1+json"),
            layers=[blob(f"{prefix}image.rootfs.diff.tar.gzip")],
        )
    )
    assert len(parsed.layers) == 1


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "image manifest: not JSON"),
        (b"\xff\xfe", "image manifest: not JSON"),
        (b"[" * 100_000, "image manifest: not JSON"),
        (b"[]", "image manifest: not an object"),
        (b"null", "image manifest: missing"),
        (manifest(schemaVersion=1), "schemaVersion: not 2"),
        (manifest(mediaType=ocispec.INDEX), "mediaType: unexpected 'application/vnd.oci.image.ind"),
        (manifest(mediaType=3), "mediaType: not a string"),
        (manifest(config=None), "config: missing"),
        (manifest(config=[]), "config: not an object"),
        (manifest(config=blob(ocispec.CONFIG, size=-1)), "config.size: not a size"),
        (manifest(config=blob(ocispec.CONFIG, size=True)), "config.size: not a size"),
        (manifest(config=blob(ocispec.CONFIG, size=1e3)), "config.size: not a size"),
        (manifest(config=blob(ocispec.CONFIG, size=1 << 63)), "config.size: not a size"),
        (manifest(config=blob(ocispec.CONFIG, digest="md5:1")), "config.digest: not a digest"),
        (manifest(config=blob(ocispec.CONFIG, digest=None)), "config.digest: missing"),
        (manifest(config={"digest": DIGEST, "size": 1}), "config.mediaType: missing"),
        (manifest(layers=None), "layers: missing"),
        (manifest(layers={}), "layers: not a list"),
        (manifest(layers=[blob(LAYER), 7]), r"layers\[1\]: not an object"),
        (manifest(layers=[blob("text/plain")]), r"layers\[0\].mediaType: unknown layer type"),
        (
            manifest(layers=[blob(f"{LAYER}+xz")]),
            r"layers\[0\].mediaType: a layer compressed by 'xz'",
        ),
        (
            manifest(layers=[blob("application/vnd.docker.image.rootfs.diff.tar.bzip2")]),
            r"layers\[0\].mediaType: a layer compressed by 'bzip2', which layers cannot be",
        ),
        (
            manifest(layers=[blob("application/vnd.oci.image.layer.v1.tar+xz")]),
            "compressed by 'xz'",
        ),
        (manifest(layers=[blob("+xz")]), "unknown layer type"),
        (manifest(annotations={"a": 1}), "annotations.a: not a string"),
        (manifest(annotations={"\x1b[2J": 1}), r"annotations.\\x1b\[2J: not a string"),
        (manifest(annotations={"a": "\ud800"}), "annotations.a: not a string"),
        (manifest(annotations={"\ud800": "a"}), "annotations: not keyed by strings"),
        (manifest(mediaType="x" * 10_000), "mediaType: unexpected 'x{199}$"),
        (
            manifest(config=blob("application/vnd.oci.empty.v1+json"), artifactType="x/y"),
            "no container image but an artifact of type 'x/y'",
        ),
        (manifest(config=blob("application/x")), "an artifact of type 'application/x'"),
    ],
)
def test_bad_manifests(raw: bytes, message: str) -> None:
    with pytest.raises(ImageSpecError, match=message):
        Manifest.parse(raw)


def test_config() -> None:
    parsed = ImageConfig.parse(
        config(created="2024-01-01T00:00:00Z", config={"Labels": {"a": "b"}})
    )
    assert parsed.architecture == "amd64"
    assert parsed.os == "linux"
    assert parsed.created == "2024-01-01T00:00:00Z"
    assert parsed.labels == {"a": "b"}
    assert parsed.diff_ids == (OciDigest.parse(DIGEST),)
    bare = ImageConfig.parse(config(config={"Labels": None}))
    assert (bare.created, bare.labels) == (None, {})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{}", "rootfs: missing"),
        (config(architecture=None), "image configuration: architecture: missing"),
        (config(os=1), "os: not a string"),
        (config(rootfs={"type": "x", "diff_ids": []}), "rootfs.type: 'x' instead of 'layers'"),
        (config(rootfs={"type": "layers"}), "rootfs.diff_ids: missing"),
        (config(rootfs={"type": "layers", "diff_ids": [1]}), r"diff_ids\[0\]: not a digest"),
        (config(rootfs={"type": "layers", "diff_ids": ["../x"]}), r"diff_ids\[0\]: not a digest"),
        (config(config={"Labels": ["a"]}), "config.Labels: not an object"),
    ],
)
def test_bad_configs(raw: bytes, message: str) -> None:
    with pytest.raises(ImageSpecError, match=message):
        ImageConfig.parse(raw)


def test_platform_of_config() -> None:
    parsed = ImageConfig.parse(config(architecture="arm64"))
    parsed.check_platform("arm64")
    with pytest.raises(WrongArchitecture, match="is for arm64, this machine is amd64"):
        parsed.check_platform("amd64")
    with pytest.raises(WrongArchitecture, match="operating system 'windows'"):
        ImageConfig.parse(config(os="windows")).check_platform("amd64")


def test_platform_selection() -> None:
    def entry(architecture: str | None, size: int, os: str = "linux") -> dict[str, Any]:
        more = {"platform": {"architecture": architecture, "os": os}} if architecture else {}
        return blob(ocispec.MANIFEST, size=size, **more)

    parsed = Index.parse(
        index(
            entry("amd64", 1),
            entry("arm64", 2),
            entry("arm64", 3, os="windows"),
            entry(None, 4),
            blob("application/x", size=5),
            mediaType=ocispec.INDEX,
        )
    )
    assert parsed.manifests[0].platform == Platform("amd64", "linux")
    assert [m.size_bytes for m in parsed.for_platform("amd64")] == [1]
    assert [m.size_bytes for m in parsed.for_platform("arm64")] == [2]
    assert [m.size_bytes for m in parsed.for_platform("riscv64")] == [4]
    assert parsed.architectures() == ["amd64", "arm64"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (index(3), r"image index: manifests\[0\]: not an object"),
        (index(blob(ocispec.MANIFEST, platform={})), r"manifests\[0\].platform.architecture: mis"),
        (index(mediaType=ocispec.MANIFEST), "image index: mediaType: unexpected"),
    ],
)
def test_bad_indexes(raw: bytes, message: str) -> None:
    with pytest.raises(ImageSpecError, match=message):
        Index.parse(raw)


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        (manifest()[:-1] + b', "layers": []}', "layers"),
        (manifest()[:-1] + b', "annotations": {"a": "1", "b": "", "a": "1"}}', "a"),
        (manifest().replace(b'"size": 5', b'"size": 5, "size": 6', 1), "size"),
        (manifest()[:-1] + b', "x": [{"\\u0061\\n": 1, "a\\n": 2}]}', r"a\\n"),
    ],
)
def test_a_key_that_stands_twice(raw: bytes, key: str) -> None:
    """Go takes the last, and merges maps; Rust refuses."""
    with pytest.raises(ImageSpecError, match=f"^image manifest: the key {key} stands twice$"):
        Manifest.parse(raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (manifest(Layers=[]), "image manifest: layers: stands there as Layers, too"),
        (manifest(SCHEMAVERSION=2), "image manifest: schemaVersion: stands there as SCHEMAVERSION"),
        (manifest(config=blob(ocispec.CONFIG, Digest=1)), "config.digest: stands there as Digest"),
    ],
)
def test_a_field_in_two_spellings(raw: bytes, message: str) -> None:
    """To Go both are the same field."""
    with pytest.raises(ImageSpecError, match=message):
        Manifest.parse(raw)
    labels = {"A": "1", "a": "2", "Labels": "3"}
    assert ImageConfig.parse(config(config={"Labels": labels})).labels == labels


def test_go_architecture() -> None:
    assert go_architecture("x86_64") == "amd64"
    assert go_architecture("aarch64") == "arm64"
    assert go_architecture("riscv64") == "riscv64"


def test_what_is_too_large_to_be_read_back_is_not_parsed() -> None:
    space = b" " * ocispec.MAX_MANIFEST_BYTES
    with pytest.raises(ImageSpecError, match=r"image manifest: .* 4194304 are the limit"):
        Manifest.parse(manifest() + space)
    with pytest.raises(ImageSpecError, match=r"image index: .* 4194304 are the limit"):
        Index.parse(space + b" ")
    assert ImageConfig.parse(config() + space).os == "linux"
    with pytest.raises(ImageSpecError, match=r"image configuration: .* 16777216 are the limit"):
        ImageConfig.parse(config() + space * 4)
