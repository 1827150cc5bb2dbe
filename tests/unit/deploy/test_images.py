"""``bootc image``: which images a machine has, and copies that make the same deployment."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bootc.deploy import images as host_images
from bootc.deploy.images import NoRoom, NoSuchImage, copy_image
from bootc.deploy.images import host_images as list_images
from bootc.events import Event, null_sink
from bootc.formats import ocispec
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.splitstream import StreamReader
from bootc.fs.process import CommandFailed, ToolMissing
from bootc.oci.layout_write import OutputExists
from bootc.oci.names import layer_id
from bootc.oci.source import open_source
from bootc.oci.stored import find_image
from support import osimages
from support.bench import Bench
from support.bootdirs import SYSTEMD
from support.commands import Commands
from support.images import compute_image_id
from support.osimages import Images


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a machine that runs NEW and can go back to OLD."""
    images = Images(tmp_path / "images", SYSTEMD.boot_type)
    return Bench(SYSTEMD, tmp_path, images, osimages.OLD, osimages.NEW)


def copied(bench: Bench, source: str | None, target: str) -> OciDigest:
    with bench.machine.open() as system:
        return copy_image(system, source, ImageReference.parse(target), null_sink)


def test_the_images_are_those_of_the_deployments(bench: Bench) -> None:
    with bench.machine.open() as system:
        found = list_images(system)
    assert [(image.deployment.hex, image.roles) for image in found] == [
        (bench.id(osimages.NEW), ("booted",)),
        (bench.id(osimages.OLD), ("rollback",)),
    ]
    assert {str(image.image) for image in found} == {str(bench.channel.reference)}
    assert all(image.manifest is not None for image in found)


@pytest.mark.parametrize(
    ("source", "image"),
    [
        (None, osimages.NEW),
        ("booted", osimages.NEW),
        ("rollback", osimages.OLD),
        ("name", osimages.NEW),
        ("id", osimages.OLD),
    ],
)
def test_a_copy_makes_the_same_deployment(
    bench: Bench, tmp_path: Path, source: str | None, image: osimages.OsImage
) -> None:
    if source == "name":
        source = bench.channel.reference.name
    elif source == "id":
        source = bench.id(image)[:12]
    target = f"oci:{tmp_path}/copy:a"
    digest = copied(bench, source, target)
    with open_source(ImageReference.parse(target)) as opened:
        assert opened.manifest_digest == digest
        assert compute_image_id(opened).hex == bench.id(image)
        assert {layer.media_type for layer in opened.layers} == {
            "application/vnd.oci.image.layer.v1.tar"
        }
        # The same again, next to it.
        assert copied(bench, source, f"oci:{tmp_path}/copy:b") == digest
    index = json.loads((tmp_path / "copy/index.json").read_bytes())
    names = [entry["annotations"][ocispec.REF_NAME] for entry in index["manifests"]]
    assert names == ["a", "b"]


@pytest.mark.parametrize("source", ["staged", "docker://example.com/other", "ffffff", ""])
def test_an_image_that_no_deployment_has(bench: Bench, tmp_path: Path, source: str) -> None:
    with pytest.raises(NoSuchImage, match="no deployment has the image"):
        copied(bench, source, f"oci:{tmp_path}/copy:a")
    assert not (tmp_path / "copy").exists()


def test_a_name_that_is_taken_is_refused_before_anything_is_read(
    bench: Bench, tmp_path: Path
) -> None:
    copied(bench, None, f"oci:{tmp_path}/copy:a")
    with pytest.raises(OutputExists, match="has an image a already"):
        copied(bench, "nonsense", f"oci:{tmp_path}/copy:a")


def test_a_damaged_layer_leaves_no_copy(bench: Bench, tmp_path: Path) -> None:
    with bench.machine.open() as system:
        repository = system.repository
        image = list_images(system)[0]
        assert image.manifest is not None
        diff_id = find_image(repository, str(image.manifest)).documents.diff_ids[0]
        stream = StreamReader(repository.streams.read(layer_id(diff_id)))
        path = Path(repository.objects.path_of(stream.object_refs[0]))
    path.write_bytes(bytes(len(path.read_bytes())))
    with bench.machine.open() as system, pytest.raises(Exception, match=r"damaged|digest"):
        copy_image(system, None, ImageReference.parse(f"oci:{tmp_path}/copy:a"), null_sink)
    assert not (tmp_path / "copy").exists()


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    return Commands(tmp_path / "commands", monkeypatch)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    monkeypatch.setattr(host_images, "_SCRATCH", str(path))
    return path


def test_another_target_needs_skopeo_and_room(
    bench: Bench, scratch: Path, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.hide_system()
    with pytest.raises(ToolMissing, match="skopeo"):
        copied(bench, None, "oci-archive:/x")
    skopeo = commands.mock("skopeo")
    full = os.statvfs_result((4096, 4096, 100, 1, 1, 0, 0, 0, 0, 255))
    with bench.machine.open() as system, monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda path: full)
        with pytest.raises(NoRoom, match=r"has 4.0 KiB free, and the image needs"):
            copy_image(system, None, ImageReference.parse("oci-archive:/x"), null_sink)
    assert (list(scratch.iterdir()), skopeo.calls) == ([], [])


def test_what_skopeo_says_is_the_error_and_nothing_is_left(
    bench: Bench, scratch: Path, commands: Commands
) -> None:
    skopeo = commands.mock("skopeo", "echo no such place >&2; exit 1")
    events: list[Event] = []
    with bench.machine.open() as system, pytest.raises(CommandFailed, match="no such place"):
        copy_image(system, None, ImageReference.parse("dir:/nowhere"), events.append)
    (call,) = skopeo.calls
    assert call[:3] == ["--insecure-policy", "copy", "--quiet"]
    assert call[3].startswith(f"oci:{scratch}/")
    assert call[4:] == ["dir:/nowhere"]
    assert list(scratch.iterdir()) == []
    assert "to dir:/nowhere" in str(events[0])
