from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.errors import Error, one_line
from bootc.formats import ocispec
from bootc.formats.digest import DigestMismatch, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import MAX_MANIFEST_BYTES, ImageSpecError, WrongArchitecture
from bootc.oci.layoutdir import LayoutError, open_layout
from bootc.oci.source import open_source
from support import images
from support.images import ARCHITECTURE, OTHER_ARCHITECTURE, Layout

DATA = images.bootable()


def manifest_of(layout: Layout, tag: str | None = None) -> str:
    reference = ImageReference.parse(layout.reference(tag))
    with open_layout(reference, ARCHITECTURE) as source:
        assert OciDigest.of(source.manifest_raw) == source.manifest_digest
        return str(source.manifest_digest)


def platform(architecture: str) -> dict[str, object]:
    return {"platform": {"architecture": architecture, "os": "linux"}}


def read_all(layout: Layout) -> None:
    with (
        open_layout(ImageReference.parse(layout.reference()), ARCHITECTURE) as source,
        source.blob(source.layers[0]) as blob,
    ):
        while blob.read(1000):
            pass


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")


def test_one_image(layout: Layout) -> None:
    entry = layout.image([DATA], tag="v1")
    reference = ImageReference.parse(layout.reference())
    with open_source(reference) as source:
        assert source.imgref == reference
        assert str(source.manifest_digest) == entry["digest"]
        assert (
            OciDigest.of(source.config_raw)
            == ocispec.Manifest.parse(source.manifest_raw).config.digest
        )
        (descriptor,) = source.layers
        with source.blob(descriptor) as blob:
            parts = []
            while part := blob.read(100):
                parts.append(part)
        assert b"".join(parts) == images.compress(DATA, "gzip")


def test_tags(layout: Layout) -> None:
    one = layout.image([DATA], tag="v1")
    two = layout.image([images.bootable(images.file("x"))], tag="v2")
    assert manifest_of(layout, "v1") == one["digest"]
    assert manifest_of(layout, "v2") == two["digest"]
    with pytest.raises(LayoutError, match="holds no image tagged 'v3'") as caught:
        manifest_of(layout, "v3")
    assert caught.value.hint == "its tags are v1, v2"
    for number in range(20):
        layout.image([DATA], tag=f"t{number:02}\x1b[2J")
    with pytest.raises(LayoutError) as caught:
        manifest_of(layout, "v3")
    # A name that cannot be typed is shown as a number.
    names = ", ".join(f"@{number}" for number in range(2, 10))
    assert caught.value.hint == f"its tags are v1, v2, {names} and 12 more"
    # Twenty of the tags are of one image.
    with pytest.raises(LayoutError, match="holds 2 images to choose from"):
        manifest_of(layout)


def test_names_as_podman_and_skopeo_write_them(layout: Layout) -> None:
    names = ["localhost/os:v1", "localhost:5000/a/os:v1", "os:v1"]
    found = {
        name: layout.image([images.bootable(images.file(f"usr/{n}"))], tag=name)
        for n, name in enumerate(names)
    }
    for name, entry in found.items():
        assert manifest_of(layout, name) == entry["digest"]
    with pytest.raises(LayoutError, match="holds no image tagged 'localhost/os'") as caught:
        manifest_of(layout, "localhost/os")
    assert caught.value.hint == "its tags are localhost/os:v1, localhost:5000/a/os:v1, os:v1"


def test_images_by_number(layout: Layout) -> None:
    bare = layout.image([DATA])
    odd = layout.image([images.bootable(images.file("x"))], tag="two\nlines")
    named = layout.image([images.bootable(images.file("y"))], tag="v1")
    for number, entry in enumerate((bare, odd, named)):
        assert manifest_of(layout, f"@{number}") == entry["digest"]
    for name in ("@3", "@", "@-1", "@x", "@" + "9" * 30, "v2"):
        with pytest.raises(LayoutError, match="holds no image tagged") as caught:
            manifest_of(layout, name)
        assert caught.value.hint == "its tags are v1, @0, @1"
    with pytest.raises(LayoutError, match="holds 3 images to choose from") as caught:
        manifest_of(layout)
    assert caught.value.hint == "name one as oci:DIRECTORY:NAME; its tags are v1, @0, @1"


def test_images_without_names(layout: Layout) -> None:
    layout.image([DATA])
    layout.image([images.bootable(images.file("x"))])
    with pytest.raises(LayoutError) as caught:
        manifest_of(layout)
    assert caught.value.hint == (
        "name one as oci:DIRECTORY:NAME; its images have no tags, but numbers: @0, @1"
    )


def test_a_hint_has_an_end(layout: Layout) -> None:
    entry = layout.image([DATA])
    layout.manifests.clear()
    for number in range(1000):
        layout.add(entry, tag=f"{number:04}")
    with pytest.raises(LayoutError) as caught:
        manifest_of(layout, "none")
    assert (caught.value.hint or "").endswith(", 0008, 0009 and 990 more")


def test_an_image_that_is_listed_twice(layout: Layout) -> None:
    """The same one is no choice; two of one name are."""
    entry = layout.image([DATA], tag="v1")
    layout.add(entry, tag="v1")
    layout.add(entry)
    assert manifest_of(layout, "v1") == manifest_of(layout) == entry["digest"]
    layout.image([images.bootable(images.file("x"))], tag="v1")
    with pytest.raises(LayoutError, match="holds 2 images to choose from"):
        manifest_of(layout, "v1")


def test_platforms_side_by_side(layout: Layout) -> None:
    layout.image([DATA], descriptor=platform(OTHER_ARCHITECTURE))
    ours = layout.image([DATA], descriptor=platform(ARCHITECTURE), manifest={"annotations": {}})
    assert manifest_of(layout) == ours["digest"]


def test_index_within_the_index(layout: Layout) -> None:
    other = layout.image([DATA], descriptor=platform(OTHER_ARCHITECTURE))
    ours = layout.image([DATA], descriptor=platform(ARCHITECTURE), manifest={"annotations": {}})
    inner = {"schemaVersion": 2, "mediaType": ocispec.INDEX, "manifests": [other, ours]}
    layout.manifests.clear()
    layout.add(layout.document(inner, ocispec.INDEX), tag="multi")
    assert manifest_of(layout, "multi") == ours["digest"]


@pytest.mark.parametrize("nested", [False, True])
def test_other_machines_only(layout: Layout, nested: bool) -> None:
    entry = layout.image([DATA], descriptor=platform(OTHER_ARCHITECTURE))
    if nested:
        layout.manifests.clear()
        inner = {"schemaVersion": 2, "manifests": [entry]}
        layout.add(layout.document(inner, ocispec.INDEX))
    message = f"is for {OTHER_ARCHITECTURE}, this machine is {ARCHITECTURE}"
    with pytest.raises(WrongArchitecture, match=message):
        manifest_of(layout)


def test_endless_indexes(layout: Layout) -> None:
    entry = layout.image([DATA])
    for _ in range(5):
        entry = layout.document({"schemaVersion": 2, "manifests": [entry]}, ocispec.INDEX)
    layout.write_index([entry])
    with pytest.raises(LayoutError, match="nested more than 4 deep"):
        manifest_of(layout)


def test_no_layout(tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with (
            pytest.raises(LayoutError) as caught,
            open_layout(ImageReference("oci", str(path)), ARCHITECTURE),
        ):
            pass
        return one_line(caught.value)

    assert refused(tmp_path / "none") == f"there is no directory {tmp_path}/none"
    assert refused(tmp_path / "a:b/c") == (
        f"there is no directory {tmp_path}/a "
        "(hint: the path ends at the first colon; b/c would be the image)"
    )
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file") == f"there is no directory {tmp_path}/file"
    (tmp_path / "empty").mkdir()
    assert "is not an OCI layout directory" in refused(tmp_path / "empty")
    layout = Layout(tmp_path / "bare")
    assert "holds no image" in refused(layout.path)


@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
@pytest.mark.parametrize("how", ["changed", "longer", "shorter", "missing"])
def test_damage_is_found(layout: Layout, which: str, how: str) -> None:
    entry = layout.image([DATA])
    with open_layout(ImageReference.parse(layout.reference()), ARCHITECTURE) as source:
        manifest = ocispec.Manifest.parse(source.manifest_raw)
    digest = {
        "manifest": entry["digest"],
        "config": str(manifest.config.digest),
        "layer": str(manifest.layers[0].digest),
    }[which]
    path = layout.blob_path(digest)
    data = path.read_bytes()
    expected: type[Error] = DigestMismatch
    match how:
        case "changed":
            path.write_bytes(b"X" + data[1:])
            message = f"blob {digest} has the digest sha256:"
        case "longer":
            path.write_bytes(data + b"X")
            message = f"should have {len(data)} bytes and has more"
        case "shorter":
            path.write_bytes(data[:-1])
            message = f"should have {len(data)} bytes and has {len(data) - 1} bytes"
        case _:
            path.unlink()
            expected, message = LayoutError, f"is incomplete: blob {digest} is missing"
    with pytest.raises(expected, match=message):
        read_all(layout)


def test_bad_documents(layout: Layout) -> None:
    layout.image([DATA], manifest={"layers": [{"mediaType": "text/plain"}]})
    with pytest.raises(ImageSpecError, match=r"layers\[0\].digest: missing"):
        manifest_of(layout)
    (layout.path / "index.json").write_text("{")
    with pytest.raises(ImageSpecError, match=r"index.json: not JSON"):
        manifest_of(layout)
    (layout.path / "index.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(LayoutError, match="more than 4194304 bytes"):
        manifest_of(layout)


def test_oversized_manifest(layout: Layout) -> None:
    layout.add(layout.blob(b" " * (5 << 20), ocispec.MANIFEST))
    with pytest.raises(DigestMismatch, match="too large for application/vnd"):
        manifest_of(layout)


def test_layouts_of_symlinks(tmp_path: Path, layout: Layout) -> None:
    entry = layout.image([DATA])
    (tmp_path / "cache").mkdir()
    for path in (layout.path / "blobs" / "sha256").iterdir():
        moved = path.rename(tmp_path / "cache" / path.name)
        path.symlink_to(moved)
    assert manifest_of(layout) == entry["digest"]


def in_place_of_index(layout: Layout) -> Path:
    return layout.path / "index.json"


def in_place_of_manifest(layout: Layout) -> Path:
    return layout.blob_path(layout.manifests[0]["digest"])


def in_place_of_config(layout: Layout) -> Path:
    manifest = json.loads(in_place_of_manifest(layout).read_bytes())
    return layout.blob_path(manifest["config"]["digest"])


def in_place_of_layer(layout: Layout) -> Path:
    manifest = json.loads(in_place_of_manifest(layout).read_bytes())
    return layout.blob_path(manifest["layers"][0]["digest"])


def make_directory(path: Path) -> None:
    path.mkdir()


def make_socket(path: Path) -> None:
    short = Path("/tmp", f"bootc-test-{os.getpid()}.socket")  # 108 bytes are the limit
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short))
    shutil.move(short, path)


def link_to_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [os.mkfifo, make_directory, make_socket, link_to_device])
@pytest.mark.parametrize(
    "place", [in_place_of_index, in_place_of_manifest, in_place_of_config, in_place_of_layer]
)
def test_what_is_no_file_neither_hangs_nor_is_read(
    layout: Layout, place: Callable[[Layout], Path], make: Callable[[Path], None]
) -> None:
    layout.image([DATA])
    path = place(layout)
    path.unlink()
    make(path)
    with pytest.raises(LayoutError) as caught:
        read_all(layout)
    assert one_line(caught.value).endswith(f"{path} is not a regular file")


def test_an_index_without_end(layout: Layout) -> None:
    os.truncate(layout.path / "index.json", 1 << 40)
    with pytest.raises(LayoutError, match=f"index.json has more than {MAX_MANIFEST_BYTES} bytes"):
        read_all(layout)
