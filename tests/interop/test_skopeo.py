"""Images through a real skopeo, from a real registry and from files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.formats.digest import DigestMismatch, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.fs import process
from bootc.fs.process import CommandFailed, ToolMissing
from bootc.oci import skopeo
from bootc.oci.pull import compute_image_id
from bootc.oci.skopeo import SkopeoError
from bootc.oci.source import open_source
from support import images, require
from support.images import directory, file
from testbed import registry

pytestmark = pytest.mark.interop

NOISE = bytes(i * i % 251 for i in range(300_000))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[registry.Registry]:
    with registry.running(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def insecure(server: registry.Registry, monkeypatch: pytest.MonkeyPatch) -> registry.Registry:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> images.Layout:
    require.tool("skopeo")
    return images.single(
        tmp_path_factory.mktemp("image") / "layout",
        images.bootable(kernel=b"kernel" * 100, initramfs=b"initramfs" * 100),
        images.layer(directory("usr/share"), file("usr/share/noise", NOISE)),
        tag="os",
    )


def image_id(reference: str) -> str:
    with open_source(ImageReference.parse(reference)) as source:
        return compute_image_id(source).hex


def manifest_digest(reference: str) -> OciDigest:
    with open_source(ImageReference.parse(reference)) as source:
        return source.manifest_digest


def test_registry_gives_the_same_image(insecure: registry.Registry, layout: images.Layout) -> None:
    reference = insecure.push(layout.reference("os"), "os:1", "--preserve-digests")
    assert image_id(reference) == image_id(layout.reference("os"))
    assert manifest_digest(reference) == manifest_digest(layout.reference("os"))
    by_digest = f"{reference.removesuffix(':1')}@{manifest_digest(reference)}"
    assert manifest_digest(by_digest) == manifest_digest(reference)


@pytest.mark.parametrize("compression", ["", "zstd"])
def test_other_compressions(insecure: registry.Registry, tmp_path: Path, compression: str) -> None:
    layout = images.single(tmp_path / "layout", images.bootable(), compression=compression)
    reference = insecure.push(layout.reference(), f"compressed:{compression or 'plain'}")
    assert image_id(reference) == image_id(layout.reference())


def test_docker_manifest(insecure: registry.Registry, layout: images.Layout) -> None:
    reference = insecure.push(layout.reference("os"), "docker:1", "--format", "v2s2")
    assert image_id(reference) == image_id(layout.reference("os"))
    with open_source(ImageReference.parse(reference)) as source:
        # The registry's digest, over a manifest that skopeo has converted.
        stored = insecure.directory / "storage/docker/registry/v2/blobs/sha256"
        digest = source.manifest_digest.hex
        original = json.loads((stored / digest[:2] / digest / "data").read_bytes())
        assert original["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
        assert b"vnd.oci.image.config" in source.manifest_raw


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive", "dir"])
def test_files(layout: images.Layout, tmp_path: Path, transport: str) -> None:
    reference = f"{transport}:{tmp_path}/image"
    registry.skopeo("copy", layout.reference("os"), reference)
    assert image_id(reference) == image_id(layout.reference("os"))


def test_local_storage(
    layout: images.Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require.root()
    storage = tmp_path / "storage.conf"
    storage.write_text(
        f'[storage]\ndriver = "vfs"\nrunroot = "{tmp_path}/run"\ngraphroot = "{tmp_path}/graph"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(storage))
    reference = "containers-storage:localhost/os:1"
    registry.skopeo("copy", layout.reference("os"), reference)
    if skopeo_version() < (1, 11):
        with pytest.raises(SkopeoError, match="too old to read local container storage"):
            image_id(reference)
    else:
        assert image_id(reference) == image_id(layout.reference("os"))


def skopeo_version() -> tuple[int, ...]:
    text = process.run(["skopeo", "--version"]).stdout.decode().split()[2]
    return tuple(int(part) for part in text.split("-")[0].split(".")[:2])


def test_no_such_image(insecure: registry.Registry) -> None:
    with pytest.raises(SkopeoError) as caught:
        image_id(insecure.name("none:1"))
    line = one_line(caught.value)
    assert line.startswith(f"Opening image {insecure.name('none:1')}: skopeo: ")
    assert "manifest unknown" in line
    assert "\n" not in line


def test_no_such_registry() -> None:
    with pytest.raises(SkopeoError, match="connection refused"):
        image_id("docker://127.0.0.1:1/os:1")


def test_plain_http_needs_permission(server: registry.Registry, layout: images.Layout) -> None:
    server.push(layout.reference("os"), "plain:1")
    with pytest.raises(SkopeoError, match="HTTP response to HTTPS client"):
        image_id(server.name("plain:1"))


def interrupt(reference: str) -> None:
    with (
        open_source(ImageReference.parse(reference)) as source,
        source.blob(source.layers[1]) as blob,
    ):
        assert blob.read(10)
        raise KeyboardInterrupt


@pytest.mark.parametrize("how", ["changed", "short", "missing"])
def test_damage_in_the_registry(insecure: registry.Registry, tmp_path: Path, how: str) -> None:
    content = file(f"usr/{how}", NOISE + how.encode())
    layout = images.single(tmp_path / "layout", images.bootable(content), compression="")
    reference = insecure.push(layout.reference(), f"damaged:{how}", "--preserve-digests")
    with open_source(ImageReference.parse(reference)) as source:
        (layer,) = source.layers
        digest = layer.digest.hex
        stored = insecure.directory / "storage/docker/registry/v2/blobs/sha256"
        blob = stored / digest[:2] / digest / "data"
        data = blob.read_bytes()
        match how:
            case "changed":
                blob.write_bytes(data[:5000] + b"X" + data[5001:])
            case "short":
                blob.write_bytes(data[:-5000])
            case _:
                blob.unlink()
        with pytest.raises((SkopeoError, DigestMismatch)) as caught:
            compute_image_id(source)
    line = one_line(caught.value)
    assert digest in line
    assert line.startswith("Unpacking layer sha256:")


def test_giving_up_early(insecure: registry.Registry, layout: images.Layout) -> None:
    reference = insecure.push(layout.reference("os"), "early:1")
    with pytest.raises(KeyboardInterrupt):
        interrupt(reference)


def test_credentials_of_the_host(
    insecure: registry.Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That skopeo reads the file shows by its complaint about what is in it.
    auth = tmp_path / "auth.json"
    auth.write_text("no JSON at all")
    monkeypatch.setattr(skopeo, "AUTH_FILES", (str(tmp_path / "none"), str(auth)))
    with pytest.raises(SkopeoError, match=r"auth\.json"):
        image_id(insecure.name("os:1"))


def test_skopeo_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "skopeo"
    fake.write_text("#!/bin/sh\necho out of order >&2\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(CommandFailed, match="failed with exit code 3: out of order"):
        image_id("dir:/none")


@pytest.mark.parametrize(
    "reply", ["[]", "{", '{"success": false}', '{"success": true, "value": "x"}']
)
def test_skopeo_that_talks_nonsense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reply: str
) -> None:
    fake = tmp_path / "skopeo"
    fake.write_text(f"#!/bin/sh\nprintf '%s' '{reply}' >&0\nsleep 5\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(SkopeoError, match=r"makes no sense|unknown protocol"):
        image_id("dir:/none")


def test_no_skopeo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bootc.fs.process._SYSTEM_PATH", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(ToolMissing) as caught:
        image_id("docker://127.0.0.1:1/os:1")
    assert one_line(caught.value) == (
        "the program skopeo is not installed (hint: on Debian it is in the package skopeo)"
    )
