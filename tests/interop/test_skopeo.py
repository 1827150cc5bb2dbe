"""Images through a real skopeo, from a real registry and from files."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.formats import splitstream
from bootc.formats.digest import DigestMismatch, OciDigest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.imgref import ImageReference
from bootc.formats.splitstream import StreamReader, StreamWriter
from bootc.formats.verity import verity_digest
from bootc.fs import process
from bootc.fs.dir import Dir
from bootc.fs.process import CommandFailed, ToolMissing
from bootc.oci import skopeo
from bootc.oci.fsck import check_images
from bootc.oci.layoutdir import LayoutError
from bootc.oci.pull import pull
from bootc.oci.sigpolicy import RejectedByPolicy
from bootc.oci.skopeo import SkopeoError
from bootc.oci.source import open_source
from bootc.oci.stored import find_image, list_images
from bootc.oci.trees import config_tree
from bootc.repository.fsck import check
from bootc.repository.repository import Repository
from support import images, require
from support import skopeo as skopeos
from support.images import compute_image_id, directory, file
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


DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def docker_reference(
    transport: str, layout: images.Layout, server: registry.Registry, tmp_path: Path
) -> str:
    """Put an image where its manifest is Docker's, and return its reference."""
    if transport == "docker":
        return server.push(layout.reference("os"), "docker:1", "--format", "v2s2")
    reference = f"{transport}:{tmp_path}/image"
    options = [] if transport == "docker-archive" else ["--format", "v2s2"]
    registry.skopeo("copy", *options, layout.reference("os"), reference)
    return reference


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Dir.open(tmp_path) as root, Repository.create(root, secure=False) as repository:
        yield repository


@pytest.mark.parametrize("transport", ["docker", "dir", "docker-archive"])
def test_docker_manifests(
    insecure: registry.Registry,
    layout: images.Layout,
    tmp_path: Path,
    repository: Repository,
    transport: str,
) -> None:
    reference = docker_reference(transport, layout, insecure, tmp_path)
    assert image_id(reference) == image_id(layout.reference("os"))
    with open_source(ImageReference.parse(reference)) as source:
        # The bytes that have the digest, and not what skopeo converts them to.
        assert OciDigest.of(source.manifest_raw) == source.manifest_digest
        manifest = json.loads(source.manifest_raw)
        assert manifest["mediaType"] == DOCKER_MANIFEST
        assert str(OciDigest.of(source.config_raw)) == manifest["config"]["digest"]
        pulled = pull(repository, source, tag="x")
    if transport == "docker":
        stored = insecure.directory / "storage/docker/registry/v2/blobs/sha256"
        digest = source.manifest_digest.hex
        assert (stored / digest[:2] / digest / "data").read_bytes() == source.manifest_raw
    image = find_image(repository, "x")
    assert image.documents.manifest_digest == source.manifest_digest
    assert image.made(1, bootable=True) == pulled.image_id
    root = config_tree(repository, image.stored_config, bootable=True)
    assert verity_digest(mkfs_erofs(root), repository.algorithm) == pulled.image_id
    assert [tag for tag, _ in list_images(repository)] == ["x"]
    assert check_images(repository, check(repository)).ok


def test_a_configuration_keeps_what_only_docker_knows(
    repository: Repository, layout: images.Layout, tmp_path: Path
) -> None:
    # What a builder of Docker images writes; skopeo's conversion has another configuration.
    archive = images.bootable(kernel=b"kernel" * 100)
    config = json.dumps(
        {
            "architecture": images.ARCHITECTURE,
            "os": "linux",
            "docker_version": "20.10",
            "container_config": {"Cmd": ["x"]},
            "config": {"Labels": None},
            "rootfs": {"type": "layers", "diff_ids": [images.sha256(archive)]},
        }
    ).encode()
    name = f"{images.sha256(config).removeprefix('sha256:')}.json"
    listed = [{"Config": name, "RepoTags": ["os:1"], "Layers": ["layer.tar"]}]
    members = (
        file(name, config),
        file("layer.tar", archive),
        file("manifest.json", json.dumps(listed).encode()),
    )
    (tmp_path / "image.tar").write_bytes(images.layer(*members))
    with open_source(ImageReference.parse(f"docker-archive:{tmp_path}/image.tar")) as source:
        assert source.config_raw == config
        pull(repository, source, tag="x")
    assert find_image(repository, "x").documents.config_raw == config
    assert check_images(repository, check(repository)).ok


def test_a_list_of_docker_manifests(
    insecure: registry.Registry,
    layout: images.Layout,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reference = docker_reference("docker", layout, insecure, tmp_path)
    with open_source(ImageReference.parse(reference)) as source:
        one = source.manifest_digest
        entry = {
            "mediaType": DOCKER_MANIFEST,
            "digest": str(one),
            "size": len(source.manifest_raw),
            "platform": {"architecture": images.ARCHITECTURE, "os": "linux"},
        }
    kind = "application/vnd.docker.distribution.manifest.list.v2+json"
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}).encode()
    request = urllib.request.Request(
        f"http://{insecure.host}/v2/docker/manifests/list",
        data=raw,
        headers={"Content-Type": kind},
        method="PUT",
    )
    urllib.request.urlopen(request).close()
    with open_source(ImageReference.parse(insecure.name("docker:list"))) as source:
        assert source.manifest_digest == one
        assert OciDigest.of(source.manifest_raw) == one
    assert not caplog.records
    # In a directory nothing names the original.
    copied = f"dir:{tmp_path}/copied"
    registry.skopeo("copy", "--all", "--src-tls-verify=false", insecure.name("docker:list"), copied)
    with open_source(ImageReference.parse(copied)) as source:
        assert source.manifest_digest == OciDigest.of(source.manifest_raw) != one
        assert image_id(copied) == image_id(layout.reference("os"))
    assert str(one) in caplog.records[0].getMessage()


def test_a_converted_manifest_of_before_is_found_and_healed(
    insecure: registry.Registry,
    layout: images.Layout,
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reference = docker_reference("docker", layout, insecure, Path())
    with open_source(ImageReference.parse(reference)) as source:
        digest = source.manifest_digest
        pulled = pull(repository, source, tag="x")
        # As it was stored: what skopeo served, under the digest it gave.
        _, served = source.image.document("GetManifest", 1 << 20)  # type: ignore[attr-defined]
    name = f"oci-manifest-{digest}"
    stored = StreamReader(repository.streams.read(name)).named_refs
    stream = StreamWriter(repository.algorithm, splitstream.OCI_MANIFEST)
    for key, referred in stored.items():
        stream.refer(key, referred)
    stream.external(repository.objects.put(served), len(served))
    repository.streams.write(name, stream.finish())
    report = check_images(repository, check(repository))
    assert [(f.kind.value, f.path) for f in report.findings] == [("manifest-digest-mismatch", "x")]
    assert list(list_images(repository)) == []
    with open_source(ImageReference.parse(reference)) as source:
        assert pull(repository, source, tag="x").image_id == pulled.image_id
    assert check_images(repository, check(repository)).ok
    assert find_image(repository, "x").documents.manifest_digest == digest


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive", "dir"])
def test_files(layout: images.Layout, tmp_path: Path, transport: str) -> None:
    reference = f"{transport}:{tmp_path}/image"
    registry.skopeo("copy", layout.reference("os"), reference)
    assert image_id(reference) == image_id(layout.reference("os"))


#: Names in a layout that holds these two, and whether there is such an image.
LONG, SHORT = "localhost:5000/a/os:v1", "v1"
NAMES = {
    f":{LONG}": True,
    f":{SHORT}": True,
    ":localhost:5000/a/os": False,
    ":os:v1": False,
    ":v1:": False,
    "": False,  # there are two
    ":": False,
    "/:v1": True,
}


@pytest.mark.parametrize("name", NAMES)
def test_names_in_a_layout_are_those_of_skopeo(tmp_path: Path, name: str) -> None:
    layout = images.Layout(tmp_path / "layout")
    layout.image([images.bootable()], tag=LONG)
    layout.image([images.bootable(images.file("x"))], tag=SHORT)
    reference = f"{layout.reference()}{name}"
    try:
        theirs = process.run(["skopeo", "inspect", "--raw", reference]).stdout
    except CommandFailed:
        theirs = None
    try:
        with open_source(ImageReference.parse(reference)) as source:
            ours = source.manifest_raw
    except LayoutError:
        ours = None
    assert ours == theirs
    assert (ours is not None) is NAMES[name]


@pytest.mark.parametrize(
    "reference",
    [
        "oci-archive:{path}/image:localhost/os:v1",
        "docker-archive:{path}/image:localhost/os:v1",
        "dir:{path}/with:colon",
    ],
)
def test_names_in_files(layout: images.Layout, tmp_path: Path, reference: str) -> None:
    text = reference.format(path=tmp_path)
    registry.skopeo("copy", layout.reference("os"), text)
    assert image_id(text) == image_id(layout.reference("os"))
    assert str(ImageReference.parse(text)) == text


@pytest.mark.parametrize("where", ["manifest.json", "version", "layer"])
def test_a_fifo_in_a_directory_is_not_waited_for(
    layout: images.Layout, tmp_path: Path, where: str
) -> None:
    registry.skopeo("copy", layout.reference("os"), f"dir:{tmp_path}/image")
    with open_source(ImageReference.parse(f"dir:{tmp_path}/image")) as source:
        names = {"layer": source.layers[0].digest.hex}
    path = tmp_path / "image" / names.get(where, where)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SkopeoError, match="is not a regular file"):
        image_id(f"dir:{tmp_path}/image")


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
    if skopeos.version() < skopeos.LOCAL_STORAGE:
        with pytest.raises(SkopeoError, match="too old to read local container storage"):
            image_id(reference)
    else:
        assert image_id(reference) == image_id(layout.reference("os"))


@pytest.mark.parametrize("transport", ["registry", "docker-archive", "oci-archive", "dir", "oci"])
def test_a_policy_that_rejects(
    insecure: registry.Registry,
    layout: images.Layout,
    tmp_path: Path,
    transport: str,
) -> None:
    if transport == "registry":
        reference = insecure.push(layout.reference("os"), "policy:1")
    else:
        reference = f"{transport}:{tmp_path}/image"
        registry.skopeo("copy", layout.reference("os"), reference)
    parsed = ImageReference.parse(reference)
    policy = insecure.directory / "home/.config/containers/policy.json"
    policy.write_text('{"default": [{"type": "reject"}]}')
    # Older versions do not even read the policy. bootc reads directories itself.
    checks = transport == "oci" or skopeos.proxy_version() >= skopeos.SIGNATURES
    try:
        with contextlib.ExitStack() as stack:
            if checks:
                stack.enter_context(
                    pytest.raises(
                        (SkopeoError, RejectedByPolicy), match=r"rejected by|rejects oci:"
                    )
                )
            stack.enter_context(open_source(parsed))
    finally:
        policy.unlink()


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
    assert line.startswith("Unpacking layer ")


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
