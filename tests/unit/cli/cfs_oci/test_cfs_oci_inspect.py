"""``cfs oci``: stored images, their layers and ids."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

import pytest

from bootc.cli import main as cli
from bootc.formats import ocispec, splitstream
from bootc.formats.digest import OciDigest
from bootc.formats.dumpfile import parse_dumpfile
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.splitstream import StreamWriter
from bootc.fs.dir import Dir
from bootc.oci.names import XattrMode
from bootc.repository.repository import Repository
from support import images
from support.cfs import Cfs
from support.ociverbs import BASE, BIG, TOP, TOP_ID, digests_of, image_id, object_of, stream_object


def test_images(pulled: Cfs, layout: images.Layout) -> None:
    manifest, _ = digests_of(layout)
    pulled("oci", "tag", manifest, "a/b:1%")
    assert pulled("oci", "images").splitlines() == [
        "┌────────┬──────────────┬───────┬────────┬──────┐",
        "│ NAME   ┆ DIGEST       ┆ ARCH  ┆ LAYERS ┆ REFS │",
        "╞════════╪══════════════╪═══════╪════════╪══════╡",
        f"│ a/b:1% ┆ {manifest[7:19]} ┆ {images.ARCHITECTURE} ┆ 2      ┆ 0    │",
        "├╌╌╌╌╌╌╌╌┼╌╌╌╌╌╌╌╌╌╌╌╌╌╌┼╌╌╌╌╌╌╌┼╌╌╌╌╌╌╌╌┼╌╌╌╌╌╌┤",
        f"│ os     ┆ {manifest[7:19]} ┆ {images.ARCHITECTURE} ┆ 2      ┆ 0    │",
        "└────────┴──────────────┴───────┴────────┴──────┘",
    ]
    told = json.loads(pulled("oci", "images", "--json"))
    assert told["images"][1] == {
        "name": "os",
        "manifest_digest": manifest,
        "is_container": True,
        "architecture": images.ARCHITECTURE,
        "os": "linux",
        "created": "2026-01-02T03:04:05Z",
        "layer_count": 2,
        "referrer_count": 0,
    }


def test_no_images(cfs: Cfs) -> None:
    assert cfs("oci", "images") == "No images found\n"
    assert json.loads(cfs("oci", "images", "--json")) == {"images": []}


def test_a_damaged_image_is_skipped(
    pulled: Cfs, layout: images.Layout, caplog: pytest.LogCaptureFixture
) -> None:
    manifest, _ = digests_of(layout)
    (pulled.repo / "streams" / f"oci-manifest-{manifest}").unlink()
    with caplog.at_level(logging.WARNING):
        assert pulled("oci", "images") == "No images found\n"
    (message,) = [r.getMessage() for r in caplog.records]
    assert message.startswith("skipping image os: Reading image sha256:")


def test_inspect(pulled: Cfs, layout: images.Layout) -> None:
    manifest, config = digests_of(layout)
    raw = layout.blob_path(manifest).read_bytes()
    raw_config = layout.blob_path(config).read_bytes()
    referrer = f"sha256:{'ab' * 32}"
    refs = pulled.repo / "streams/refs/oci-referrers" / manifest
    refs.mkdir(parents=True)
    (refs / referrer).symlink_to(f"../../../oci-manifest-{referrer}")
    for name in ("os", manifest, f"@{manifest}"):
        assert pulled.raw("oci", "inspect", name, "--manifest")[1] == raw + b"\n"
        assert pulled.raw("oci", "inspect", name, "--config")[1] == raw_config + b"\n"
        assert json.loads(pulled("oci", "inspect", name)) == {
            "manifest": raw.decode(),
            "config": raw_config.decode(),
            "referrers": [referrer],
            "composefs_erofs": image_id(layout, bootable=False),
            "composefs_boot_erofs": None,
        }
    assert "┆ 1    │" in pulled("oci", "images")


def test_inspect_of_nothing(pulled: Cfs) -> None:
    lists = f"(hint: bootc internals cfs --repo {pulled.repo} oci images lists the images)"
    absent = f"sha256:{'ab' * 32}"
    assert pulled.error("oci", "inspect", "none") == f"no image is tagged 'none' {lists}"
    assert pulled.error("oci", "inspect", absent) == f"there is no image {absent} {lists}"
    assert "not an OCI digest: 'sha256:12'" in pulled.error("oci", "inspect", "@sha256:12")
    (pulled.repo / "streams/refs/oci/layer").symlink_to(f"../../oci-layer-{TOP_ID}")
    assert "which is not a manifest" in pulled.error("oci", "inspect", "layer")
    both = pulled.error("oci", "inspect", "os", "--manifest", "--config", code=2)
    assert both == "--manifest and --config exclude each other"


@pytest.mark.parametrize("verb", ["layer", "layers"])
def test_a_layer_comes_back_byte_for_byte(pulled: Cfs, verb: str) -> None:
    for archive in (BASE, TOP):
        code, out, _ = pulled.raw("oci", verb, images.sha256(archive))
        assert code == 0
        assert f"sha256:{hashlib.sha256(out).hexdigest()}" == images.sha256(archive)


def test_facts_about_a_layer(pulled: Cfs) -> None:
    assert json.loads(pulled("oci", "layer", TOP_ID, "--json")) == {
        "diffId": TOP_ID,
        "verity": stream_object(pulled, f"oci-layer-{TOP_ID}"),
        "size": len(TOP),
        "entryCount": 6,
        "splitstream": {
            "externalObjects": 2,
            "externalSize": 3500,
            "inlineSize": len(TOP) - 3500,
        },
    }


def test_entries_of_a_layer(pulled: Cfs) -> None:
    big, other = object_of(BIG), object_of(b"other" * 100)
    time = f"{images.MTIME}.0"
    assert pulled("oci", "layer", TOP_ID, "--dumpfile").splitlines() == [
        f"/usr/share 0 40755 1 0 0 0 {time} - - -",
        f"/usr/share/big 3000 100755 1 7 0 0 {time} {big.object_path} - {big} user.note=x",
        f"/usr/share/small 5 100644 1 0 0 0 {time} - small -",
        "/usr/share/again 0 @120000 - - - - 0.0 /usr/share/big - -",
        f"/usr/share/link 3 120777 1 0 0 0 {time} big - -",
        f"/usr/share/other 500 100644 1 0 0 0 {time} {other.object_path} - {other}",
    ]


def test_no_layer(pulled: Cfs) -> None:
    absent = f"sha256:{'ab' * 32}"
    for option in ((), ("--json",), ("--dumpfile",)):
        assert f"there is no layer {absent}" in pulled.error("oci", "layer", absent, *option)
    assert "not an OCI digest: 'top'" in pulled.error("oci", "layer", "top", code=2)
    both = pulled.error("oci", "layer", TOP_ID, "--json", "--dumpfile", code=2)
    assert both == "--json and --dumpfile exclude each other"


def test_no_archive_on_a_terminal(pulled: Cfs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli.sys.stdout, "isatty", lambda: True)
    assert pulled.error("oci", "layer", TOP_ID).startswith("a terminal cannot show a tar archive")
    assert json.loads(pulled("oci", "layer", TOP_ID, "--json"))["size"] == len(TOP)


def test_a_damaged_layer_does_not_pass_for_a_whole_one(pulled: Cfs) -> None:
    pulled.damage(object_of(BIG))
    code, out, err = pulled.raw("oci", "layer", TOP_ID)
    assert (code, len(out)) == (1, len(TOP))
    assert f"stored layer {TOP_ID} has the digest sha256:" in err
    pulled.path_of(object_of(BIG)).unlink()
    assert "No such file or directory" in pulled.raw("oci", "layer", TOP_ID)[2]


def test_compute_id(pulled: Cfs, layout: images.Layout) -> None:
    manifest, config = digests_of(layout)
    verity = stream_object(pulled, f"oci-config-{config}")
    for bootable in (False, True):
        option = ("--bootable",) if bootable else ()
        for mode in XattrMode:
            wanted = image_id(layout, bootable=bootable, xattrs=mode)
            for name in (("os",), (f"@{config}",), (f"@{config}", verity)):
                words = (*name, "--xattrs", mode.value, *option)
                assert pulled("oci", "compute-id", *words) == f"{wanted}\n"
    second = pulled("oci", "compute-id", "os", group=("--erofs-version", "2"))
    assert second == f"{image_id(layout, 2, bootable=False)}\n"
    code, out, _ = pulled.raw("oci", "dump", "os", "--bootable")
    dumped = mkfs_erofs(parse_dumpfile(out.splitlines()))
    assert (code, object_of(dumped).hex) == (0, image_id(layout))
    # There a digest is the configuration's.
    said = pulled.error("oci", "compute-id", f"@{manifest}")
    assert "this is the digest of a manifest: give the image's tag" in said
    wrong = pulled.error("oci", "compute-id", "os", "ab" * 64)
    assert wrong == f"the stream of configuration {config} is {verity} and not {'ab' * 64}"
    assert "no image is tagged 'none'" in pulled.error("oci", "dump", "none")


def test_compute_id_trusts_what_a_tag_names_and_fsck_compares_it(
    pulled: Cfs, layout: images.Layout
) -> None:
    pulled.damage(object_of(BIG))
    config = digests_of(layout)[1]
    verity = stream_object(pulled, f"oci-config-{config}")
    for words in (["os"], ["os", verity], [f"@{config}"]):
        said = pulled("oci", "compute-id", *words)
        assert said == f"{image_id(layout, bootable=False)}\n"
    code, said, _ = pulled.raw("oci", "fsck")
    assert (code, TOP_ID.encode() in said) == (1, True)


def test_an_artifact_is_listed(cfs: Cfs, layout: images.Layout) -> None:
    # Only other tools store one: a configuration that is none, and layers of any type.
    config = b"{}"
    blob = images.sha256(b"blob")
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": ocispec.MANIFEST,
            "config": {"mediaType": "application/x", "digest": images.sha256(config), "size": 2},
            "layers": [{"mediaType": "application/y", "digest": blob, "size": 4}],
        }
    ).encode()
    with (
        Dir.open(cfs.repo.parent) as parent,
        Repository.open(parent, name="repo", require_verity=False, writable=True) as repository,
    ):
        for kind, content_type, raw in (
            ("config", splitstream.OCI_CONFIG, config),
            ("manifest", splitstream.OCI_MANIFEST, manifest),
        ):
            stream = StreamWriter(repository.algorithm, content_type)
            stream.external(repository.objects.put(raw), len(raw))
            repository.streams.write(f"oci-{kind}-{OciDigest.of(raw)}", stream.finish())
        repository.streams.set_ref("oci/sig", f"oci-manifest-{OciDigest.of(manifest)}")
    assert "┆ artifact ┆ 1      ┆" in cfs("oci", "images")
    (told,) = json.loads(cfs("oci", "images", "--json"))["images"]
    assert (told["is_container"], told["architecture"], told["created"]) == (False, "", None)
    assert json.loads(cfs("oci", "inspect", "sig"))["composefs_erofs"] is None
    assert "no image was made of sig" in cfs.error("oci", "mount", "sig", cfs.repo)


def test_nothing_to_mount(pulled: Cfs, tmp_path: Path) -> None:
    said = pulled.error("oci", "mount", "os", tmp_path, "--bootable")
    assert said == "no boot image was made of os (hint: pull it again with --bootable)"
    assert "no image is tagged 'none'" in pulled.error("oci", "mount", "none", tmp_path)
    assert pulled.error("oci", "mount", "os", tmp_path, "--read-write", code=2) == (
        "--read-write needs --upperdir"
    )
