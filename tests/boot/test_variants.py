"""The images of the journeys are what the journeys take them for."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from bootc.formats.imgref import ImageReference
from bootc.formats.pe import Uki
from bootc.formats.tree import Directory, External, Inline, Leaf
from bootc.oci.pull import ImageTree, compute_image_id, image_tree
from bootc.oci.source import open_source
from support import require
from support.variants import (
    CHANGED_DEFAULT,
    CONFLICT,
    REMOVED_DEFAULT,
    UKI_DIRECTORY,
    VERSION,
    Variant,
    _padding,
)

pytestmark = [pytest.mark.boot, pytest.mark.timeout(600)]


def read(tree: ImageTree, path: str) -> bytes:
    node = tree.root.lookup(path)
    assert isinstance(node, Leaf), path
    assert isinstance(node.content, Inline | External), path
    return tree.read_content(node.content)


def test_tags(variants: Mapping[str, Variant]) -> None:
    assert list(variants) == ["v1", "v2", "v2-meta", "v3", "v3-plain", "v4", "u1", "u2", "u3"]
    assert [tag for tag, variant in variants.items() if variant.is_uki] == ["u1", "u2", "u3"]


def test_images_differ_except_where_only_metadata_do(variants: Mapping[str, Variant]) -> None:
    assert variants["v2-meta"].image_id == variants["v2"].image_id
    assert variants["v2-meta"].manifest_digest != variants["v2"].manifest_digest
    assert len({variant.image_id for variant in variants.values()}) == len(variants) - 1
    assert len({variant.manifest_digest for variant in variants.values()}) == len(variants)


def test_kernel_sets(variants: Mapping[str, Variant]) -> None:
    digests = {tag: variant.boot_digest for tag, variant in variants.items()}
    assert digests["v1"] == digests["v2"] == digests["v2-meta"] == digests["u1"] == digests["u2"]
    assert digests["v3"] == digests["v3-plain"] == digests["u3"]
    assert len(set(digests.values())) == 3
    for variant in variants.values():
        assert sum(variant.boot_files.values()) > 20 << 20


def test_the_id_is_the_one_that_is_computed(variants: Mapping[str, Variant]) -> None:
    reference = ImageReference.parse(variants["v3"].reference)
    with open_source(reference) as source:
        assert source.manifest_digest == variants["v3"].manifest_digest
        assert compute_image_id(source) == variants["v3"].image_id


def test_a_unified_kernel_names_its_image(variants: Mapping[str, Variant]) -> None:
    for tag in ("u1", "u2", "u3"):
        variant = variants[tag]
        with open_source(ImageReference.parse(variant.reference)) as source:
            tree = image_tree(source, bootable=False)
            (name,) = variant.boot_files
            uki = Uki.read(io.BytesIO(read(tree, f"{UKI_DIRECTORY}/{name}")))
        argument = uki.composefs_argument()
        assert (argument.hex, argument.optional) == (variant.image_id.hex, False)
        assert uki.os_release().version == variant.version
        words = uki.text(".cmdline").split()
        assert [word for word in words if word in variant.kargs] == variant.kargs
        modules = tree.root.lookup(f"usr/lib/modules/{uki.text('.uname')}")
        assert isinstance(modules, Directory)
        assert b"modules.dep" in modules.entries
        assert not {b"vmlinuz", b"initramfs.img"} & modules.entries.keys()


def test_what_changes_in_etc(variants: Mapping[str, Variant]) -> None:
    trees = {}
    for tag in ("v1", "v2", "v3", "v3-plain"):
        with open_source(ImageReference.parse(variants[tag].reference)) as source:
            root = image_tree(source, bootable=False).root
            trees[tag] = {
                path: root.lookup(path) for path in (CHANGED_DEFAULT, REMOVED_DEFAULT, CONFLICT)
            }
    assert all(isinstance(tree[CHANGED_DEFAULT], Leaf) for tree in trees.values())
    assert [tag for tag, tree in trees.items() if tree[REMOVED_DEFAULT]] == ["v2"]
    assert trees["v1"][CONFLICT] is None
    assert isinstance(trees["v2"][CONFLICT], Leaf)
    assert isinstance(trees["v3"][CONFLICT], Directory)
    assert isinstance(trees["v3-plain"][CONFLICT], Leaf)


def test_labels(variants: Mapping[str, Variant]) -> None:
    for variant in variants.values():
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
