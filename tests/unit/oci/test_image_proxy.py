"""What is made of skopeo's answers, those of a skopeo that lies among them.

The real one is in ``tests/interop/test_skopeo.py``.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from bootc.errors import Error, one_line
from bootc.formats import ocispec
from bootc.formats.digest import DigestMismatch, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.fs.process import CommandFailed
from bootc.oci.sigpolicy import EnforcedPolicy, PolicyNotEnforced
from bootc.oci.skopeo import SkopeoError, SkopeoSource, open_skopeo
from support import images
from support.fakeskopeo import FakeSkopeo

LAYER = images.bootable()
#: Docker's has members that the specification does not know.
CONFIG = json.dumps(
    {
        "architecture": images.ARCHITECTURE,
        "os": "linux",
        "docker_version": "20.10",
        "rootfs": {"type": "layers", "diff_ids": [images.sha256(LAYER)]},
    }
).encode()
OCI_CONFIG = CONFIG.replace(b'"docker_version": "20.10", ', b"")
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"


def manifest(config: bytes, types: tuple[str, str, str], **more: Any) -> bytes:
    of_manifest, of_config, of_layer = types
    named = {"mediaType": of_config, "digest": images.sha256(config), "size": len(config)}
    packed = images.compress(LAYER, "gzip")
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": of_manifest,
            "config": named,
            "layers": [
                {"mediaType": of_layer, "digest": images.sha256(packed), "size": len(packed)}
            ],
            **more,
        }
    ).encode()


ORIGINAL = manifest(CONFIG, (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER))
CONVERTED = manifest(OCI_CONFIG, (ocispec.MANIFEST, ocispec.CONFIG, f"{images.LAYER_TYPE}+gzip"))
DIGEST = images.sha256(ORIGINAL)


@pytest.fixture
def skopeo(tmp_path: Path) -> FakeSkopeo:
    """An image with a Docker manifest."""
    return FakeSkopeo(
        tmp_path / "skopeo",
        claimed=DIGEST,
        served=CONVERTED,
        raw=ORIGINAL,
        config=OCI_CONFIG,
        blobs={images.sha256(CONFIG): CONFIG, images.sha256(LAYER): LAYER},
    )


def opened(
    skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch, reference: str = "dir:/image"
) -> SkopeoSource:
    """Return the image as it was when it was open."""
    skopeo.install(monkeypatch)
    with open_skopeo(ImageReference.parse(reference)) as source:
        return source


def test_the_original_is_read_where_skopeo_converts(
    skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(skopeo, monkeypatch)
    assert source.manifest_raw == ORIGINAL
    assert str(source.manifest_digest) == DIGEST
    assert source.config_raw == CONFIG
    assert [layer.media_type for layer in source.layers] == [DOCKER_LAYER]


def test_nothing_more_is_read_where_it_does_not(
    skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch
) -> None:
    skopeo.served = CONVERTED
    skopeo.claimed = images.sha256(CONVERTED)
    skopeo.blobs[images.sha256(OCI_CONFIG)] = OCI_CONFIG
    assert opened(skopeo, monkeypatch).config_raw == OCI_CONFIG
    assert [call[0] for call in skopeo.calls()] == ["experimental-image-proxy"]


POLICY = EnforcedPolicy("/policy.json", b'{"default": []}', ())


def test_skopeo_gets_the_policy_that_was_judged(
    skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch
) -> None:
    skopeo.replies = {"Initialize": '{"success": true, "value": "0.2.6"}'}
    skopeo.install(monkeypatch)
    with open_skopeo(ImageReference.parse("docker://host/os"), policy=POLICY):
        pass
    assert (skopeo.directory / "policy").read_bytes() == POLICY.raw
    skopeo.replies |= {"OpenImage": '{"success": false, "error": "no signature exists"}'}
    skopeo.install(monkeypatch)
    with (
        pytest.raises(SkopeoError) as caught,
        open_skopeo(ImageReference.parse("docker://host/os"), policy=POLICY),
    ):
        pass
    assert one_line(caught.value) == (
        "Opening image docker://host/os under the signature policy /policy.json: "
        "skopeo: no signature exists"
    )


def test_an_older_skopeo_cannot_enforce_a_policy(
    skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch
) -> None:
    skopeo.install(monkeypatch)
    with (
        pytest.raises(PolicyNotEnforced, match="this skopeo does not check signatures"),
        open_skopeo(ImageReference.parse("docker://host/os"), policy=POLICY),
    ):
        pass


@pytest.mark.parametrize(
    ("reference", "read"),
    [
        ("docker://host:5000/os", f"docker://host:5000/os@{DIGEST}"),
        ("docker://host:5000/os:1", f"docker://host:5000/os@{DIGEST}"),
        (f"docker://host/os@sha256:{'0' * 64}", f"docker://host/os@{DIGEST}"),
        ("docker-archive:/a:os:1", "docker-archive:/a:os:1"),
        ("dir:/a", "dir:/a"),
    ],
)
def test_in_a_registry_it_is_read_by_its_digest(
    skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch, reference: str, read: str
) -> None:
    # Its tag may have moved, or be that of a list.
    opened(skopeo, monkeypatch, reference)
    assert skopeo.calls()[1] == ["inspect", "--raw", read]


@pytest.mark.parametrize("raw", [CONVERTED, ORIGINAL + b" ", b"", b"[]", b"{", b"[" * 100_000])
def test_another_manifest_than_skopeo_says_is_refused(
    skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch, raw: bytes
) -> None:
    skopeo.raw = raw
    with pytest.raises(DigestMismatch) as caught:
        opened(skopeo, monkeypatch)
    assert f"has the digest {images.sha256(raw)} instead of {DIGEST}" in one_line(caught.value)


def test_another_configuration_is_refused(
    skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch
) -> None:
    skopeo.blobs[images.sha256(CONFIG)] = CONFIG.replace(b"20.10", b"20.11")
    with pytest.raises(DigestMismatch, match=images.sha256(CONFIG)):
        opened(skopeo, monkeypatch)


@pytest.mark.parametrize("kind", ["list", "first schema"])
def test_what_has_no_original_is_called_by_its_conversion(
    skopeo: FakeSkopeo,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    entry = {"mediaType": DOCKER_MANIFEST, "digest": DIGEST, "size": len(ORIGINAL)}
    documents = {
        "list": {"schemaVersion": 2, "manifests": [entry]},
        "first schema": {"schemaVersion": 1, "name": "os", "fsLayers": []},
    }
    skopeo.raw = json.dumps(documents[kind]).encode()
    source = opened(skopeo, monkeypatch)
    assert source.manifest_raw == CONVERTED
    assert source.manifest_digest == OciDigest.of(CONVERTED)
    assert source.config_raw == OCI_CONFIG
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert DIGEST in record.getMessage()
    assert images.sha256(CONVERTED) in record.getMessage()
    # Its configuration is compared, too.
    skopeo.config = CONFIG
    with pytest.raises(DigestMismatch, match="the configuration has the digest"):
        opened(skopeo, monkeypatch)


def test_an_original_that_cannot_be_read(
    skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch
) -> None:
    skopeo.inspect_exit = 1
    skopeo.stderr = "no such image\n"
    with pytest.raises(CommandFailed, match="failed with exit code 1: no such image"):
        opened(skopeo, monkeypatch)


def test_manifests_have_one_limit(skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch) -> None:
    long = ORIGINAL + b" " * ocispec.MAX_MANIFEST_BYTES
    skopeo.served = long
    with pytest.raises(SkopeoError, match=f"{ocispec.MAX_MANIFEST_BYTES} bytes are the limit"):
        opened(skopeo, monkeypatch)
    skopeo.served, skopeo.raw = CONVERTED, long
    with pytest.raises(CommandFailed, match="it wrote more than 4194304 bytes"):
        opened(skopeo, monkeypatch)


def packet(value: str, **more: str) -> str:
    members = {"success": "true", "value": value, "pipeid": "0", **more}
    return "{" + ", ".join(f'"{key}": {text}' for key, text in members.items()) + "}"


DEEP = "[" * 900 + "]" * 900


@pytest.mark.parametrize(
    ("method", "reply"),
    [
        ("Initialize", packet('"².²"')),
        ("Initialize", packet('"0.2.3\\n"')),
        ("Initialize", packet('"1"')),
        ("Initialize", packet('"0.' + "9" * 5000 + '"')),
        ("Initialize", packet(DEEP)),
        ("Initialize", packet("null")),
        ("Initialize", packet('"0.2.3"', pipeid="Infinity")),
        ("Initialize", packet('"0.2.3"', pipeid="NaN")),
        ("Initialize", packet('"0.2.3"', pipeid="1e999")),
        ("Initialize", packet('"0.2.3"', pipeid="-1")),
        ("Initialize", packet('"0.2.3"', pipeid='"7"')),
        ("Initialize", packet('"0.2.3"', pipeid="9" * 4000)),
        ("Initialize", packet('"0.2.3"', pipeid=DEEP)),
        ("Initialize", packet('"0.2.3"', success="1")),
        ("Initialize", "[" * 100_000),
        ("Initialize", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")),
        ("OpenImage", packet("true")),
        ("OpenImage", packet("1.5")),
        ("OpenImage", packet(DEEP)),
        ("OpenImage", '{"success": false, "error": 1}'),
        ("GetManifest", packet('"x"')),
        ("GetManifest", packet("Infinity", pipeid="7")),
    ],
    ids=lambda value: value[:60],
)
def test_nonsense_is_one_line(
    skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch, method: str, reply: str
) -> None:
    skopeo.replies = {method: reply}
    with pytest.raises(SkopeoError) as caught:
        opened(skopeo, monkeypatch)
    assert len(one_line(caught.value)) < 1000


def test_a_digest_that_is_none(skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch) -> None:
    skopeo.claimed = "sha256:short"
    with pytest.raises(SkopeoError, match="makes no sense"):
        opened(skopeo, monkeypatch)


INFO = {"digest": images.sha256(LAYER), "size": len(LAYER), "media_type": images.LAYER_TYPE}


@pytest.mark.parametrize(
    "infos",
    [
        "null",
        "{}",
        "[1]",
        "[{}]",
        json.dumps([{**INFO, "size": "1"}]),
        json.dumps([{**INFO, "size": float("inf")}]),
        json.dumps([{**INFO, "digest": 1}]),
        json.dumps([{**INFO, "media_type": None}]),
    ],
)
def test_layers_of_local_storage_that_make_no_sense(
    skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch, infos: str
) -> None:
    skopeo.replies = {"Initialize": packet('"0.2.6"'), "GetLayerInfo": packet(infos)}
    with pytest.raises(SkopeoError, match="makes no sense"):
        opened(skopeo, monkeypatch, "containers-storage:os")
    skopeo.replies = {**skopeo.replies, "GetLayerInfo": packet(json.dumps([INFO]))}
    (layer,) = opened(skopeo, monkeypatch, "containers-storage:os").layers
    assert (layer.media_type, layer.size_bytes) == (images.LAYER_TYPE, len(LAYER))


def test_a_long_complaint_is_cut(skopeo: FakeSkopeo, monkeypatch: pytest.MonkeyPatch) -> None:
    skopeo.replies = {"OpenImage": json.dumps({"success": False, "error": "x " * 100_000})}
    with pytest.raises(Error) as caught:
        opened(skopeo, monkeypatch)
    assert len(one_line(caught.value)) < 5000
