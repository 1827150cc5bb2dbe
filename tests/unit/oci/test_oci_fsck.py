"""Damaged images are found."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.cli.render.fsck import oci_report_json, oci_report_text, report_json, report_text
from bootc.formats import splitstream
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.splitstream import StreamReader
from bootc.oci import contents
from bootc.oci.documents import write_documents
from bootc.oci.fsck import OciFsckReport, check_images
from bootc.oci.layers import check_layer
from bootc.oci.layoutdir import open_layout
from bootc.oci.pull import Pulled, pull
from bootc.oci.stored import find_config, find_image, read_image
from bootc.oci.tags import untag_image
from bootc.oci.trees import config_tree
from bootc.oci.unpack import split_layer
from bootc.repository.fsck import check
from bootc.repository.fsck_report import Count
from bootc.repository.gc import collect
from bootc.repository.repository import Repository
from support import images
from support.layers import (
    DIFF_IDS,
    LAYERS,
    checked,
    damage,
    objects_in_layer,
    path_of,
    put_document,
)


def kinds(report: OciFsckReport) -> list[str]:
    return [finding.kind.value for finding in report.findings]


def test_a_sound_image(repository: Repository, pulled: Pulled) -> None:
    report = checked(repository)
    assert report.ok
    assert report.images == Count(1, 0)
    assert oci_report_text(report) == report_text(report.repository) + "oci images: 1/1 ok\n"
    assert oci_report_text(report).endswith("status: ok\noci images: 1/1 ok\n")
    assert json.loads(json.dumps(oci_report_json(report))) == {
        "ok": True,
        "images_checked": 1,
        "images_corrupted": 0,
        "errors": [],
        "repo": report_json(report.repository),
    }


def test_no_images(repository: Repository) -> None:
    assert checked(repository).images == Count(0, 0)


def test_one_image_by_its_tag(repository: Repository, pulled: Pulled) -> None:
    name = "os"
    report = check(repository)
    assert check_images(repository, report, tag=name).images == Count(1, 0)
    for absent in ("absent", "..", "nul\0"):
        found = check_images(repository, report, tag=absent)
        assert kinds(found) == ["ref-resolve-failed"]
        assert found.images == Count(1, 1)


@pytest.mark.parametrize(
    ("target", "found"),
    [
        ("../../oci-manifest-sha256:short", ["ref-resolve-failed"]),
        ("../../ostree-commit-0", []),
    ],
)
def test_tags_of_something_else(repository: Repository, target: str, found: list[str]) -> None:
    tags = Path(repository.dir.path, "streams/refs/oci")
    tags.mkdir(parents=True)
    (tags / "tag").symlink_to(target)
    assert kinds(checked(repository)) == found
    assert kinds(check_images(repository, check(repository), tag="tag")) == ["ref-resolve-failed"]


def test_a_reserved_name(repository: Repository, pulled: Pulled) -> None:
    repository.streams.set_ref("oci/@sha256:0", f"oci-manifest-{pulled.manifest_digest}")
    report = checked(repository)
    assert [str(finding) for finding in report.findings] == [
        "fsck: invalid-ref-name: @sha256:0: leading '@' is reserved for digest references"
    ]
    assert oci_report_text(report).endswith(
        f"oci images: 1/2 ok\noci errors: 1\n  - {report.findings[0]}\n"
    )


def manifest_object(repository: Repository, pulled: Pulled) -> None:
    stream = StreamReader(repository.streams.read(f"oci-manifest-{pulled.manifest_digest}"))
    damage(path_of(repository, stream.object_refs[0]))


def manifest_link(repository: Repository, pulled: Pulled) -> None:
    Path(repository.dir.path, f"streams/oci-manifest-{pulled.manifest_digest}").unlink()


def manifest_content(repository: Repository, pulled: Pulled) -> None:
    name = f"oci-manifest-{pulled.manifest_digest}"
    put_document(repository, name, splitstream.OCI_MANIFEST, b"{}")


def manifest_type(repository: Repository, pulled: Pulled) -> None:
    name = f"oci-manifest-{pulled.manifest_digest}"
    put_document(repository, name, splitstream.OCI_CONFIG, b"{}")


def manifest_refs(repository: Repository, pulled: Pulled) -> None:
    name = f"oci-manifest-{pulled.manifest_digest}"
    raw = StreamReader(repository.streams.read(name)).object_refs[0]
    data = repository.objects.read(raw)
    put_document(repository, name, splitstream.OCI_MANIFEST, data)


def config_link(repository: Repository, pulled: Pulled) -> None:
    Path(repository.dir.path, f"streams/oci-config-{pulled.config_digest}").unlink()


def config_other(repository: Repository, pulled: Pulled) -> None:
    put_document(repository, f"oci-config-{pulled.config_digest}", splitstream.OCI_CONFIG, b"{}")


def config_content(repository: Repository, pulled: Pulled) -> None:
    name = f"oci-manifest-{pulled.manifest_digest}"
    raw = repository.objects.read(StreamReader(repository.streams.read(name)).object_refs[0])
    config = put_document(
        repository, f"oci-config-{pulled.config_digest}", splitstream.OCI_CONFIG, b"{}"
    )
    refs = {f"config:{pulled.config_digest}": config}
    put_document(repository, name, splitstream.OCI_MANIFEST, raw, refs)


def layer_link(repository: Repository, pulled: Pulled) -> None:
    Path(repository.dir.path, f"streams/oci-layer-{DIFF_IDS[1]}").unlink()


def layer_object(repository: Repository, pulled: Pulled) -> None:
    digest = repository.streams.digest_of(f"oci-layer-{DIFF_IDS[1]}")
    path_of(repository, digest).unlink()


def layer_other(repository: Repository, pulled: Pulled) -> None:
    link = Path(repository.dir.path, f"streams/oci-layer-{DIFF_IDS[1]}")
    link.unlink()
    link.symlink_to("/etc/passwd")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (manifest_object, ["manifest-read-failed"]),
        (manifest_link, ["manifest-read-failed"]),
        (manifest_type, ["manifest-read-failed"]),
        (manifest_content, ["manifest-digest-mismatch"]),
        (manifest_refs, ["config-ref-missing"]),
        (config_content, ["config-digest-mismatch"]),
        (layer_link, ["layer-stream-missing"]),
        (layer_object, ["layer-stream-missing", "layer-object-missing"]),
        (layer_other, ["layer-check-failed"]),
    ],
)
def test_damaged_images(
    repository: Repository,
    pulled: Pulled,
    spoil: Callable[[Repository, Pulled], None],
    found: list[str],
) -> None:
    spoil(repository, pulled)
    report = checked(repository)
    assert kinds(report) == found
    assert report.images == Count(1, 1)
    assert not report.ok


def put_image(
    repository: Repository, manifest: dict[str, object], config: dict[str, object], *refs: str
) -> None:
    """Store documents with references that all lead to the one object there is."""
    some = repository.objects.put(b"layer" * 100)
    config_raw = json.dumps(config).encode()
    digest = OciDigest.of(config_raw)
    stream = put_document(
        repository,
        f"oci-config-{digest}",
        splitstream.OCI_CONFIG,
        config_raw,
        dict.fromkeys(refs, some),
    )
    descriptor = {"mediaType": images.ocispec.CONFIG, "digest": str(digest), "size": 1}
    raw = json.dumps({"schemaVersion": 2, "config": descriptor, "layers": [], **manifest}).encode()
    raw = raw.replace(b"CONFIG", str(digest).encode())
    named = {f"config:{digest}": stream, **dict.fromkeys(refs, some)}
    name = f"oci-manifest-{OciDigest.of(raw)}"
    put_document(repository, name, splitstream.OCI_MANIFEST, raw, named)
    repository.streams.set_ref("oci/tag", name)


def test_an_image_finds_its_configuration_without_the_link(
    repository: Repository, pulled: Pulled
) -> None:
    config_link(repository, pulled)
    assert checked(repository).ok


def test_another_configuration_under_the_name(repository: Repository, pulled: Pulled) -> None:
    config_other(repository, pulled)
    report = checked(repository)
    assert [(f.kind.value, f.path) for f in report.findings] == [
        ("config-digest-mismatch", f"streams/oci-config-{pulled.config_digest}")
    ]
    # The image has its own.
    assert report.images == Count(1, 0)
    assert not report.ok


def test_two_images_of_one_configuration(repository: Repository, tmp_path: Path) -> None:
    layout = images.Layout(tmp_path / "two")
    for tag in ("plain", "boot"):
        layout.image(LAYERS, tag=tag, manifest={"annotations": {"tag": tag}})
    for tag in ("plain", "boot"):
        reference = ImageReference.parse(layout.reference(tag))
        with open_layout(reference, images.ARCHITECTURE) as source:
            made = pull(repository, source, tag=tag, bootable=tag == "boot")
    report = checked(repository)
    assert (kinds(report), report.images) == ([], Count(2, 0))
    untag_image(repository, "boot")
    collect(repository)
    report = checked(repository)
    assert (kinds(report), report.images) == ([], Count(1, 0))
    plain = find_image(repository, "plain")
    assert plain.documents.config_digest == made.config_digest
    assert plain.made(1, bootable=True) is None
    assert find_config(repository, str(made.config_digest)) == plain.stored_config
    config_tree(repository, plain.stored_config, bootable=False)


def wrong_layer(repository: Repository, number: int) -> Digest:
    """Store what another tool stores of a damaged layer: a sound stream under a wrong name."""
    archive = LAYERS[number].replace(b"oneone", b"oneowe")
    assert archive != LAYERS[number]
    stream = split_layer(io.BytesIO(archive), OciDigest.of(archive), repository.objects)
    return repository.streams.write(f"oci-layer-{DIFF_IDS[number]}", stream)


def test_a_layer_that_is_another_one(repository: Repository, pulled: Pulled) -> None:
    diff_id = DIFF_IDS[1]
    wrong = wrong_layer(repository, 1)
    report = checked(repository)
    # The image refers to the sound stream still, and a pull would have found the other one.
    assert [(f.kind.value, f.path, f.digest) for f in report.findings] == [
        ("layer-digest-mismatch", f"streams/oci-layer-{diff_id}", wrong)
    ]
    write_documents(repository, read_image(repository, pulled.manifest_digest).documents, {})
    report = checked(repository)
    got = images.sha256(LAYERS[1].replace(b"oneone", b"oneowe"))
    name = "os"
    assert [str(finding) for finding in report.findings] == [
        f"fsck: layer-digest-mismatch: {name}: "
        f"streams/oci-layer-{diff_id}: expected {diff_id}, got {got}"
    ]
    assert report.images == Count(1, 1)


def test_a_damaged_file_is_told_of_with_the_image(repository: Repository, pulled: Pulled) -> None:
    damage(path_of(repository, objects_in_layer(repository, 1)[0]))
    report = checked(repository)
    assert len(report.repository.findings) == 1
    assert kinds(report) == ["layer-digest-mismatch"]


def test_a_layer_of_several_images_is_read_once(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = images.Layout(tmp_path / "many")
    for tag in ("a", "b", "c"):
        layout.image(LAYERS[:2], tag=tag, config={"created": tag})
        reference = ImageReference.parse(layout.reference(tag))
        with open_layout(reference, images.ARCHITECTURE) as source:
            pull(repository, source, tag=tag)
    read = []

    def counting(repository: Repository, digest: OciDigest, stream: Digest) -> None:
        read.append(digest)
        check_layer(repository, digest, stream)

    monkeypatch.setattr(contents, "check_layer", counting)
    assert checked(repository).images == Count(3, 0)
    assert sorted(map(str, read)) == sorted(map(images.sha256, LAYERS[:2]))


def test_what_an_artifact_calls_a_layer_is_not_compared(repository: Repository) -> None:
    # composefs-rs stores a compressed archive unpacked, under the digest it has compressed.
    archive = LAYERS[1]
    packed = images.compress(archive, "gzip")
    digest = images.sha256(packed)
    stream = split_layer(io.BytesIO(archive), OciDigest.of(archive), repository.objects)
    layer_stream = repository.streams.write(f"oci-layer-{digest}", stream)
    config = put_document(
        repository, f"oci-config-{OciDigest.of(b'{}')}", splitstream.OCI_CONFIG, b"{}"
    )
    blob = {"mediaType": images.LAYER_TYPE + "+gzip", "digest": digest, "size": len(packed)}
    empty = {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": str(OciDigest.of(b"{}")),
        "size": 2,
    }
    raw = json.dumps({"schemaVersion": 2, "config": empty, "layers": [blob]}).encode()
    named = {f"config:{OciDigest.of(b'{}')}": config, digest: layer_stream}
    name = f"oci-manifest-{OciDigest.of(raw)}"
    put_document(repository, name, splitstream.OCI_MANIFEST, raw, named)
    assert checked(repository).ok
    repository.streams.set_ref("oci/artifact", name)
    assert checked(repository).ok


CONFIG = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}


def test_documents_that_make_no_sense(repository: Repository) -> None:
    put_image(repository, {"layers": 1}, CONFIG)
    assert kinds(checked(repository)) == ["manifest-parse-failed"]
    put_image(repository, {}, {**CONFIG, "rootfs": 1})
    assert kinds(checked(repository)) == ["config-parse-failed"]


def test_a_layer_nobody_refers_to(repository: Repository) -> None:
    rootfs = {"type": "layers", "diff_ids": [f"sha256:{'0' * 64}"]}
    put_image(repository, {}, {**CONFIG, "rootfs": rootfs})
    report = checked(repository)
    assert kinds(report) == ["layer-ref-missing"]
    assert report.findings[0].detail == f"sha256:{'0' * 64}"


@pytest.mark.parametrize("seal", ["no digest", "0" * 128])
def test_a_seal_that_is_broken(repository: Repository, seal: str) -> None:
    labels = {"Labels": {"containers.composefs.fsverity": seal}}
    put_image(repository, {}, {**CONFIG, "config": labels})
    assert kinds(checked(repository)) == ["seal-image-missing"]


def test_a_seal_that_holds(repository: Repository, pulled: Pulled) -> None:
    labels = {"Labels": {"containers.composefs.fsverity": pulled.image_id.hex}}
    put_image(repository, {}, {**CONFIG, "config": labels})
    assert checked(repository).ok


def test_artifacts(repository: Repository) -> None:
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": "CONFIG", "size": 2}
    digest = f"sha256:{'1' * 64}"
    blob = {"mediaType": "application/x-blob", "digest": digest, "size": 1}
    put_image(repository, {"config": config, "layers": [blob]}, {}, digest)
    assert checked(repository).ok
    path_of(repository, repository.objects.put(b"layer" * 100)).unlink()
    assert kinds(checked(repository)) == ["artifact-layer-object-missing"]
    put_image(repository, {"config": config, "layers": [blob]}, {})
    assert kinds(checked(repository)) == ["artifact-layer-ref-missing"]
