"""``cfs oci``: what is printed, what is stored, what is refused, and how an image heals."""

from __future__ import annotations

import hashlib
import io
import json
import logging
from pathlib import Path

import pytest

from bootc.cli import main as cli
from bootc.formats import ocispec, splitstream
from bootc.formats.digest import Algorithm, Digest, OciDigest
from bootc.formats.dumpfile import parse_dumpfile
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.imgref import ImageReference
from bootc.formats.splitstream import StreamWriter
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.oci.layoutdir import open_layout
from bootc.oci.names import XattrMode
from bootc.oci.trees import image_tree
from bootc.oci.unpack import split_layer
from bootc.repository.repository import Repository
from support import images
from support.cfs import Cfs
from support.images import directory, file, hardlink, layer, symlink, xattr

BIG = b"big" * 1000
KERNEL = b"kernel" * 1000
BASE = images.bootable(kernel=KERNEL, initramfs=b"initramfs" * 50)
TOP = layer(
    directory("usr/share"),
    file("usr/share/big", BIG, mode=0o755, uid=7, pax_headers=xattr("user.note", "x")),
    file("usr/share/small", b"small"),
    hardlink("usr/share/again", "usr/share/big"),
    symlink("usr/share/link", "big"),
    file("usr/share/other", b"other" * 100),
)
TOP_ID = images.sha256(TOP)


@pytest.fixture
def layout(tmp_path: Path) -> images.Layout:
    return images.single(tmp_path / "layout", BASE, TOP, config={"created": "2026-01-02T03:04:05Z"})


@pytest.fixture
def cfs(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Cfs:
    cfs = Cfs(tmp_path / "repo", capsysbinary, monkeypatch)
    cfs("init", "--insecure")
    return cfs


@pytest.fixture
def pulled(cfs: Cfs, layout: images.Layout) -> Cfs:
    cfs("oci", "pull", layout.reference(), "os")
    return cfs


def digests_of(layout: images.Layout) -> tuple[str, str]:
    """Return the digests of manifest and configuration."""
    manifest = layout.manifests[0]["digest"]
    return manifest, json.loads(layout.blob_path(manifest).read_bytes())["config"]["digest"]


def image_id(
    layout: images.Layout,
    version: int = 1,
    *,
    bootable: bool = True,
    xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY,
) -> str:
    """Return what the image is called that is made of the layout's."""
    with open_layout(ImageReference.parse(layout.reference()), images.ARCHITECTURE) as source:
        root = image_tree(source, bootable=bootable, xattrs=xattrs).root
    return verity_digest(mkfs_erofs(root, version=version), Algorithm.SHA512).hex


def object_of(data: bytes) -> Digest:
    return verity_digest(data, Algorithm.SHA512)


def stream_object(cfs: Cfs, content_id: str) -> str:
    target = (cfs.repo / "streams" / content_id).readlink()
    return "".join(target.parts[-2:])


# -- pull


def test_pull(cfs: Cfs, layout: images.Layout) -> None:
    manifest, config = digests_of(layout)
    out = cfs("oci", "pull", layout.reference(), "os")
    inlined = len(BASE) + len(TOP) - len(KERNEL) - 450 - len(BIG) - 500
    assert out == (
        f"manifest {manifest}\n"
        f"config   {config}\n"
        f"verity   {stream_object(cfs, f'oci-manifest-{manifest}')}\n"
        "tagged   os\n"
        "objects  4 new + 0 already present objects; "
        f"9.72 KiB stored, {inlined / 1024:.2f} KiB inlined\n"
    )
    # Nobody's tags but the one asked for.
    assert [path.name for path in (cfs.repo / "streams/refs/oci").iterdir()] == ["os"]
    again = cfs("oci", "pull", layout.reference(), "os")
    nothing = "objects  0 new + 0 already present objects; 0 B stored, 0 B inlined\n"
    assert again == out.rpartition("objects  ")[0] + nothing
    assert cfs("gc") == "Objects: 0 removed (0 bytes)\n"


def test_the_default_tag_is_the_reference(cfs: Cfs, layout: images.Layout) -> None:
    assert f"tagged   {layout.reference()}\n" in cfs("oci", "pull", layout.reference())
    assert layout.reference() in cfs("oci", "images")
    assert cfs("oci", "untag", layout.reference()) == f"Removed tag {layout.reference()}\n"


def test_pull_counts_what_is_there(cfs: Cfs, layout: images.Layout, tmp_path: Path) -> None:
    cfs("oci", "pull", layout.reference(), "os")
    other = images.single(tmp_path / "other", BASE, layer(file("new", b"n" * 70), file("b", BIG)))
    out = cfs("oci", "pull", other.reference(), "other")
    assert "objects  1 new + 1 already present objects; 70 B stored," in out


def test_pull_bootable(cfs: Cfs, layout: images.Layout) -> None:
    wanted = image_id(layout)
    out = cfs("oci", "pull", layout.reference(), "os", "--bootable")
    assert out.splitlines()[5:] == [f"Boot image: {wanted}"]
    told = json.loads(cfs("oci", "inspect", "os"))
    assert told["composefs_boot_erofs"] == wanted
    assert told["composefs_erofs"] == image_id(layout, bootable=False)
    assert sorted(path.name for path in (cfs.repo / "images").iterdir()) == sorted(
        {wanted, told["composefs_erofs"]}
    )


def test_pull_makes_images_of_the_repository_s_format(
    cfs: Cfs, layout: images.Layout, tmp_path: Path
) -> None:
    cfs.repo = tmp_path / "second"
    cfs("init", "--insecure", "--erofs-version", "2")
    out = cfs("oci", "pull", layout.reference(), "os", "--bootable")
    assert out.endswith(f"Boot image: {image_id(layout, 2)}\n")
    inspected = json.loads(cfs("oci", "inspect", "os"))
    assert inspected["composefs_boot_erofs"] == image_id(layout, 2)
    # The other format is asked for once; what there is stays.
    first = ("--erofs-version", "1")
    out = cfs("oci", "pull", layout.reference(), "os", "--bootable", group=first)
    assert out.endswith(f"Boot image: {image_id(layout, 1)}\n")
    assert json.loads(cfs("oci", "inspect", "os")) == inspected
    told = json.loads(cfs("oci", "inspect", "os", group=first))
    assert told["composefs_boot_erofs"] == image_id(layout, 1)
    zeroth = ("--erofs-version", "0")
    refused = cfs.error("oci", "pull", layout.reference(), group=zeroth, code=2)
    assert refused.startswith("images made of container images cannot have version 0")
    assert json.loads(cfs("oci", "inspect", "os", group=zeroth))["composefs_erofs"] is None


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("mode", list(XattrMode))
def test_pull_finds_the_boot_image_expected(
    cfs: Cfs, layout: images.Layout, mode: XattrMode, version: int
) -> None:
    wanted = image_id(layout, version, xattrs=mode)
    words = ("oci", "pull", layout.reference(), "os", "--bootable", "--expected-digest", wanted)
    line = f"Boot image: {wanted} (xattr-mode={mode.value}, format-version=V{version})\n"
    assert cfs(*words).endswith(line)
    assert cfs(*words).endswith(line)
    # It stays, as long as its image does.
    cfs("gc")
    assert (cfs.repo / "images" / wanted).exists()
    cfs("oci", "untag", "os")
    cfs("gc")
    assert not (cfs.repo / "images" / wanted).is_symlink()


def test_pull_does_not_find_the_boot_image_expected(cfs: Cfs, layout: images.Layout) -> None:
    pull = ("oci", "pull", layout.reference(), "os")
    other = "ab" * 64
    code, out, err = cfs.raw(*pull, "--bootable", "--expected-digest", other)
    assert (code, out) == (1, b"")
    assert json.loads(cfs("oci", "images", "--json")) == {"images": []}
    assert f"No boot image configuration matched expected digest {other} " in err
    assert "(tried 4 mode/version combinations)" in err
    short = cfs.error(*pull, "--bootable", "--expected-digest", "ab" * 32, code=2)
    assert short == "--expected-digest is not of fsverity-sha512-12"
    assert "not an fs-verity digest: 'xyz'" in cfs.error(*pull, "--expected-digest", "xyz", code=2)
    needs = cfs.error(*pull, "--expected-digest", other, code=2)
    assert needs == "--expected-digest needs --bootable"


@pytest.mark.parametrize("tag", ["@os", "", "..", "x" * 256])
def test_bad_tags(pulled: Cfs, layout: images.Layout, tag: str) -> None:
    manifest, _ = digests_of(layout)
    before = pulled("oci", "images")
    for words in (
        ("pull", layout.reference(), tag),
        ("tag", manifest, tag),
        ("untag", tag),
    ):
        assert f"bad tag '{tag}'" in pulled.error("oci", *words)
    assert pulled("oci", "images") == before


def test_pull_of_nothing(cfs: Cfs, tmp_path: Path) -> None:
    assert "names no transport" in cfs.error("oci", "pull", "debian:13")
    assert "absent" in cfs.error("oci", "pull", f"oci:{tmp_path}/absent")


# -- images, inspect


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


# -- layer


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


# -- tag, untag


def test_tags(pulled: Cfs, layout: images.Layout, tmp_path: Path) -> None:
    manifest, _ = digests_of(layout)
    other = images.single(tmp_path / "other", images.bootable())
    pulled("oci", "pull", other.reference(), "other")
    assert pulled("oci", "tag", manifest, "other") == f"Tagged {manifest} as other\n"
    names = [i["manifest_digest"] for i in json.loads(pulled("oci", "images", "--json"))["images"]]
    assert names == [manifest, manifest]
    assert pulled("oci", "untag", "os") == "Removed tag os\n"
    assert "no image is tagged 'os'" in pulled.error("oci", "untag", "os")
    # The other image has lost its only tag.
    assert "Pruned symlinks: 1 images, 3 streams" in pulled("gc")
    absent = f"sha256:{'ab' * 32}"
    assert f"there is no image {absent}" in pulled.error("oci", "tag", absent, "os")
    assert "not an OCI digest: 'os'" in pulled.error("oci", "tag", "os", "new", code=2)


# -- compute-id, dump


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


def test_compute_id_looks_at_layers_unless_told_to_trust(
    pulled: Cfs, layout: images.Layout
) -> None:
    pulled.damage(object_of(BIG))
    assert f"stored layer {TOP_ID}" in pulled.error("oci", "compute-id", "os")
    verity = stream_object(pulled, f"oci-config-{digests_of(layout)[1]}")
    trusted = pulled("oci", "compute-id", "os", verity)
    assert trusted == f"{image_id(layout, bootable=False)}\n"


# -- fsck, repair


def test_fsck(pulled: Cfs, layout: images.Layout) -> None:
    good = (
        "meta.json: ok\nobjects: 11/11 ok\nstreams: 4/4 ok\nimages: 1/1 ok\nstatus: ok\n"
        "oci images: 1/1 ok\n"
    )
    assert pulled("oci", "fsck") == good
    assert pulled("oci", "fsck", "os") == good
    told = json.loads(pulled("oci", "fsck", "--json"))
    assert (told["ok"], told["images_checked"], told["repo"]["objects_checked"]) == (True, 1, 11)
    absent = pulled("oci", "fsck", "none", code=1).splitlines()
    assert absent[5:7] == ["oci images: 0/1 ok", "oci errors: 1"]
    assert absent[7].startswith("  - fsck: ref-resolve-failed: none: ")
    (pulled.repo / "streams" / f"oci-layer-{TOP_ID}").unlink()
    found = pulled("oci", "fsck", code=1)
    assert found.endswith(
        f"oci images: 0/1 ok\noci errors: 1\n  - fsck: layer-stream-missing: os: {TOP_ID}\n"
    )
    told = json.loads(pulled("oci", "fsck", "--json"))
    assert told["errors"] == [f"fsck: layer-stream-missing: os: {TOP_ID}"]


def test_repair_and_pull_heal(pulled: Cfs, layout: images.Layout) -> None:
    damaged = object_of(BIG)
    wanted = image_id(layout, bootable=False)
    pulled.damage(damaged)
    before = pulled.objects()
    assert "object-digest-mismatch" in pulled("oci", "fsck", code=1)
    repaired = pulled("fsck", "--repair", code=1)
    did = f"quarantined: {damaged}\nset aside: oci-layer-{TOP_ID}\nmissing: {damaged}\n"
    assert did in repaired
    # The layer below is whole: without its blob, a pull gets by.
    manifest, _ = digests_of(layout)
    base = json.loads(layout.blob_path(manifest).read_bytes())["layers"][0]["digest"]
    layout.blob_path(base).unlink()
    out = pulled("oci", "pull", layout.reference(), "os")
    assert "objects  1 new + 1 already present objects; 2.93 KiB stored" in out
    after = pulled.objects()
    assert {name for name in after if after[name] != before.get(name)} == {damaged.hex}
    assert after.keys() == before.keys()
    assert pulled("oci", "fsck").endswith("status: ok\noci images: 1/1 ok\n")
    assert pulled("oci", "compute-id", "os") == f"{wanted}\n"
    assert pulled("gc") == "Objects: 0 removed (0 bytes)\n"


def store_wrong_layer(pulled: Cfs) -> None:
    """Store a sound stream under the name of another layer: one byte of a file differs."""
    wrong = TOP.replace(b"bigbig", b"bigbag", 1)
    with pulled.repository() as repository:
        stream = split_layer(io.BytesIO(wrong), OciDigest.of(wrong), repository.objects)
        repository.streams.write(f"oci-layer-{TOP_ID}", stream)


def test_a_wrong_layer_is_put_aside(pulled: Cfs, layout: images.Layout) -> None:
    store_wrong_layer(pulled)
    before = image_id(layout, bootable=False)
    found = pulled("oci", "fsck", code=1)
    where = f"streams/oci-layer-{TOP_ID}"
    finding = f"layer-digest-mismatch: {where}: {where}: expected {TOP_ID}"
    assert f"oci images: 1/1 ok\noci errors: 1\n  - fsck: {finding}, got " in found
    told = json.loads(pulled("oci", "fsck", "--json"))
    assert (told["ok"], "repair" in told) == (False, False)
    done = pulled("oci", "fsck", "--repair", code=1)
    assert done.removeprefix(found).splitlines() == [
        f"set aside: oci-layer-{TOP_ID}",
        f"left: fsck: layer-stream-missing: os: {TOP_ID}",
        "pull again: os",
    ]
    told = json.loads(pulled("oci", "fsck", "--repair", "--json"))
    assert told["repair"]["left"] == [f"fsck: layer-stream-missing: os: {TOP_ID}"]
    assert told["repair"]["pull_again"] == ["os"]
    pulled("oci", "pull", layout.reference(), "os")
    good = pulled("oci", "fsck")
    assert good.endswith("oci images: 1/1 ok\n")
    assert pulled("oci", "fsck", "--repair") == good
    assert json.loads(pulled("oci", "fsck", "--json", "--repair"))["repair"] is None
    assert pulled("oci", "compute-id", "os") == f"{before}\n"


def test_the_first_repair_names_the_image_to_pull(pulled: Cfs) -> None:
    store_wrong_layer(pulled)
    repair = json.loads(pulled("oci", "fsck", "--repair", "--json"))["repair"]
    assert repair["set_aside"] == [f"oci-layer-{TOP_ID}"]
    assert repair["pull_again"] == ["os"]


def test_a_pull_says_what_it_replaces(
    pulled: Cfs, layout: images.Layout, caplog: pytest.LogCaptureFixture
) -> None:
    before = pulled("oci", "inspect", "os")
    (pulled.repo / "objects" / object_of(BIG).object_path).unlink()
    out = pulled("oci", "pull", layout.reference(), "os")
    assert "objects  1 new + 1 already present objects; " in out
    (record,) = caplog.records
    said = (
        f"fetching the stored layer {TOP_ID} again: "
        f"it lacks 1 of its objects, for example {object_of(BIG)}"
    )
    assert record.getMessage().startswith(said)
    assert pulled("oci", "inspect", "os") == before


def test_a_lost_meta_json_changes_no_image(pulled: Cfs, layout: images.Layout) -> None:
    before = image_id(layout, bootable=False)
    meta = pulled.repo / "meta.json"
    text = meta.read_bytes()
    meta.unlink()
    assert pulled("oci", "compute-id", "os") == f"{before}\n"
    assert json.loads(pulled("oci", "inspect", "os"))["composefs_erofs"] == before
    assert not meta.exists()
    pulled("oci", "pull", layout.reference(), "os")
    assert meta.read_bytes() == text
    assert json.loads(pulled("oci", "inspect", "os"))["composefs_erofs"] == before


# -- artifacts, mount


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
