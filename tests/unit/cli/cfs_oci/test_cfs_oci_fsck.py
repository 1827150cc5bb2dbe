"""``cfs oci fsck``: findings, repair, and healing by a pull."""

from __future__ import annotations

import io
import json

import pytest

from bootc.formats.digest import OciDigest
from bootc.oci.unpack import split_layer
from support import images
from support.cfs import Cfs
from support.ociverbs import BIG, TOP, TOP_ID, digests_of, image_id, object_of


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
