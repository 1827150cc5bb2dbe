"""``cfs oci``: pulling images, and tags."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bootc.oci.names import XattrMode
from support import images
from support.cfs import Cfs
from support.images import file, layer
from support.ociverbs import BASE, BIG, KERNEL, TOP, digests_of, image_id, stream_object


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


@pytest.mark.parametrize("tag", ["@os", "..", "x" * 256])
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
