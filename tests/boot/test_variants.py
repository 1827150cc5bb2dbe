"""The images of the journeys are what the journeys take them for."""

from __future__ import annotations

import hashlib
import io
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from bootc.formats.imgref import ImageReference
from bootc.formats.pe import Uki
from bootc.formats.tree import Directory, External, Inline, Leaf
from bootc.oci.source import open_source
from bootc.oci.trees import ImageTree, image_tree
from support import require
from support.images import compute_image_id
from support.variants import (
    CHANGED_DEFAULT,
    CONFLICT,
    REMOVED_DEFAULT,
    UKI,
    UKI_DIRECTORY,
    VERSION,
    Variant,
    _padding,
)
from testbed.demo_os import DemoOs

pytestmark = [pytest.mark.boot, pytest.mark.timeout(1800)]

UKI_ONLY = pytest.param(UKI, id="uki")


def read(tree: ImageTree, path: str) -> bytes:
    node = tree.root.lookup(path)
    assert isinstance(node, Leaf), path
    assert isinstance(node.content, Inline | External), path
    return tree.read_content(node.content)


def test_tags(images: Mapping[str, Variant], family: str) -> None:
    two_digests = ["2-two"] if family == UKI else []
    assert list(images) == ["1", "2", "2-meta", "3", "3-plain", "4", *two_digests]
    assert {(variant.tag[0], variant.is_uki) for variant in images.values()} == {
        (family, family == UKI)
    }


def test_images_differ_except_where_only_metadata_or_the_kernel_do(
    images: Mapping[str, Variant],
) -> None:
    # The kernel of 2-two names its image in two formats. What lies in /boot has no part in the id.
    same_tree = {tag for tag in images if tag.partition("-")[0] == "2"}
    assert {images[tag].image_id for tag in same_tree} == {images["2"].image_id}
    assert len({variant.image_id for variant in images.values()}) == 1 + len(
        images.keys() - same_tree
    )
    assert len({variant.manifest_digest for variant in images.values()}) == len(images)


def test_kernel_sets(images: Mapping[str, Variant], demo_os: DemoOs) -> None:
    digests = {tag: variant.boot_digest for tag, variant in images.items()}
    kernel = hashlib.sha256()
    for name in ("vmlinuz", "initramfs.img"):
        kernel.update((demo_os.directory / name).read_bytes())
    same_kernel = {digests[tag] for tag in digests if tag.partition("-")[0] in ("1", "2")}
    assert same_kernel == {kernel.hexdigest()}
    assert digests["3"] == digests["3-plain"]
    assert len({digests["2"], digests["3"], digests["4"]}) == 3
    for variant in images.values():
        assert sum(variant.boot_files.values()) > 20 << 20


def test_the_id_is_the_one_that_is_computed(images: Mapping[str, Variant]) -> None:
    reference = ImageReference.parse(images["3"].reference)
    with open_source(reference) as source:
        assert source.manifest_digest == images["3"].manifest_digest
        assert compute_image_id(source) == images["3"].image_id


@pytest.mark.parametrize("family", [UKI_ONLY], indirect=True)
def test_a_unified_kernel_names_its_image(images: Mapping[str, Variant]) -> None:
    for variant in images.values():
        with open_source(ImageReference.parse(variant.reference)) as source:
            tree = image_tree(source, bootable=False)
            (name,) = variant.boot_files
            uki = Uki.read(io.BytesIO(read(tree, f"{UKI_DIRECTORY}/{name}")))
        named = uki.composefs_images()
        second = (variant.second_id.hex,) if variant.second_id else ()
        assert (named.hexes, named.optional) == ((variant.image_id.hex, *second), False)
        # The labels of 2-meta and 2-two say 9.1 and 9.2, their trees 9.
        assert uki.os_release().version == variant.version.partition(".")[0]
        words = uki.text(".cmdline").split()
        assert [word for word in words if word in variant.kargs] == variant.kargs
        modules = tree.root.lookup(f"usr/lib/modules/{uki.text('.uname')}")
        assert isinstance(modules, Directory)
        assert b"modules.dep" in modules.entries
        assert not {b"vmlinuz", b"initramfs.img"} & modules.entries.keys()


def test_what_changes_in_etc(images: Mapping[str, Variant]) -> None:
    trees = {}
    for tag in ("1", "2", "3", "3-plain"):
        with open_source(ImageReference.parse(images[tag].reference)) as source:
            root = image_tree(source, bootable=False).root
            trees[tag] = {
                path: root.lookup(path) for path in (CHANGED_DEFAULT, REMOVED_DEFAULT, CONFLICT)
            }
    assert all(isinstance(tree[CHANGED_DEFAULT], Leaf) for tree in trees.values())
    assert [tag for tag, tree in trees.items() if tree[REMOVED_DEFAULT]] == ["2"]
    assert trees["1"][CONFLICT] is None
    assert isinstance(trees["2"][CONFLICT], Leaf)
    assert isinstance(trees["3"][CONFLICT], Directory)
    assert isinstance(trees["3-plain"][CONFLICT], Leaf)


def test_labels(images: Mapping[str, Variant]) -> None:
    for variant in images.values():
        with open_source(ImageReference.parse(variant.reference)) as source:
            assert f'"{VERSION}":"{variant.version}"'.encode() in source.config_raw.replace(
                b'": "', b'":"'
            )


def test_padding_is_an_archive(tmp_path: Path) -> None:
    assert _padding(b"") == b""
    data = _padding(b"third")
    assert len(data) % 512 == 0
    listing = subprocess.run(
        [require.tool("cpio"), "--list", "--quiet"], input=data, capture_output=True, check=True
    )
    assert (listing.stdout, listing.stderr) == (b"padding\n", b"")
