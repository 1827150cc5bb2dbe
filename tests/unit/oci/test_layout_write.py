"""Images written into a layout directory: complete, or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.errors import Error, one_line
from bootc.formats import ocispec
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.oci.layout_write import OutputExists, layout_written
from bootc.oci.layoutdir import open_layout
from support import images

DATA = images.bootable()
DIGEST = OciDigest.of(DATA)


def write(reference: str) -> OciDigest:
    with layout_written(ImageReference.parse(reference)) as layout:
        return images.put_image(layout, DATA)


def files(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def digest_of(reference: str) -> OciDigest:
    with open_layout(ImageReference.parse(reference), images.ARCHITECTURE) as source:
        with source.blob(source.layers[0]) as blob:
            assert blob.read(1 << 20) + blob.read(1) == DATA
        return source.manifest_digest


@pytest.mark.parametrize("name", ["", ":v1", ":localhost:5000/os:v1"])
def test_a_new_directory(tmp_path: Path, name: str) -> None:
    reference = f"oci:{tmp_path}/a/b{name}"
    written = write(reference)
    assert digest_of(reference) == written


def test_a_directory_with_images(tmp_path: Path) -> None:
    """The other images are kept, with everything that the index says about them."""
    layout = images.single(tmp_path / "layout", images.bootable(images.file("x")), tag="old")
    index = json.loads((layout.path / "index.json").read_text())
    index["annotations"] = {"a": "b"}
    (layout.path / "index.json").write_text(json.dumps(index))
    before = files(layout.path)
    written = write(layout.reference("new"))
    assert digest_of(layout.reference("new")) == written
    after = files(layout.path)
    assert before.items() - after.items() == {("index.json", before["index.json"])}
    found = json.loads(after["index.json"])
    assert found.pop("manifests")[:1] == index.pop("manifests")
    assert found == index


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        (":old", OutputExists, "has an image old already"),
        ("", OutputExists, "has images already"),
        (":@0", Error, "is a number"),
    ],
)
def test_names_that_are_taken(tmp_path: Path, name: str, kind: type[Error], message: str) -> None:
    layout = images.single(tmp_path / "layout", DATA, tag="old")
    before = files(layout.path)
    with pytest.raises(kind, match=message):
        write(f"oci:{layout.path}{name}")
    assert files(layout.path) == before


def test_places_that_are_no_layout(tmp_path: Path) -> None:
    with pytest.raises(Error, match="only oci:DIRECTORY can be written"):
        write("docker://example.com/os:1")
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(Error, match="is not an OCI layout directory"):
        write(f"oci:{tmp_path}")
    with pytest.raises(NotADirectoryError):
        write(f"oci:{tmp_path}/letter")
    assert files(tmp_path) == {"letter": b"dear"}


@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_leaves_nothing(tmp_path: Path, existing: bool) -> None:
    path = tmp_path / "a" / "layout"
    if existing:
        images.single(path, images.bootable(images.file("x")), tag="old")
    before = files(path)

    def full() -> Iterator[bytes]:
        yield DATA[:99]
        raise OSError(errno.ENOSPC, "No space left on device")

    def fail() -> None:
        with layout_written(ImageReference.parse(f"oci:{path}:new")) as layout:
            layout.put(b"{}", ocispec.CONFIG)
            layout.add(DIGEST, full())

    with pytest.raises(OSError, match="No space left") as caught:
        fail()
    assert "\n" not in one_line(caught.value)
    assert files(path) == before
    assert path.exists() == path.parent.exists() == existing


def test_the_name_is_checked_again_at_the_end(tmp_path: Path) -> None:
    """Another program, which knows no lock, may write the same name meanwhile."""
    other = images.single(tmp_path / "other", images.bootable(images.file("x")), tag="new")
    reference = f"oci:{tmp_path}/layout:new"

    def late() -> None:
        with layout_written(ImageReference.parse(reference)) as layout:
            shutil.copytree(other.path, tmp_path / "layout", dirs_exist_ok=True)
            images.put_image(layout, DATA)

    with pytest.raises(OutputExists):
        late()
    assert files(tmp_path / "layout") == files(other.path)


def test_a_failure_after_the_commit_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index may have its name when a sync fails. Then the blobs are needed."""
    reference = f"oci:{tmp_path}/layout:new"
    fsync = os.fsync

    def fails_late(fd: int) -> None:
        fsync(fd)
        if (tmp_path / "layout/index.json").exists():
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails_late)
    with pytest.raises(OSError, match="Input/output error"):
        write(reference)
    assert digest_of(reference).algorithm == "sha256"
