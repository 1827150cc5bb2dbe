"""Layers that are in a repository already: used if they are right, else replaced."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.events import Event, Start, null_sink
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.imgref import ImageReference
from bootc.formats.splitstream import StreamReader, StreamWriter
from bootc.fs.dir import Dir
from bootc.oci.boot_image import match_boot_image
from bootc.oci.documents import Documents, write_documents
from bootc.oci.layoutdir import LayoutSource, open_layout
from bootc.oci.names import image_name
from bootc.oci.pull import Pulled, pull
from bootc.oci.source import parse_documents
from bootc.oci.stored import find_image, read_image
from bootc.oci.trees import boot_tree, stored_tree
from bootc.oci.unpack import split_layer
from bootc.repository.content import objects_of
from bootc.repository.fsck import check
from bootc.repository.gc import collect
from bootc.repository.objects import Objects
from bootc.repository.repair import repair
from bootc.repository.repository import Repository
from support import images
from support.images import compute_image_id, file
from support.layers import DIFF_IDS, FLIPPED, LAYERS, path_of, sound


def stream_of(repository: Repository, number: int) -> Digest:
    return repository.streams.digest_of(f"oci-layer-{DIFF_IDS[number]}")


def store_as_another_tool(
    repository: Repository, source: LayoutSource, archives: tuple[bytes, ...], tag: str = "theirs"
) -> Digest:
    """Store an image as composefs-rs does, which compares nothing; return the boot image."""
    manifest, config = parse_documents(source, None)
    for diff_id, archive in zip(config.diff_ids, archives, strict=True):
        stream = split_layer(io.BytesIO(archive), OciDigest.of(archive), repository.objects)
        repository.streams.write(f"oci-layer-{diff_id}", stream)
    root = stored_tree(repository, config.diff_ids)
    plain = repository.images.add(mkfs_erofs(root))
    booted = repository.images.add(mkfs_erofs(boot_tree(repository, root)))
    documents = Documents(
        source.manifest_digest,
        source.manifest_raw,
        manifest.config.digest,
        source.config_raw,
        config.diff_ids,
    )
    names = {image_name(1, bootable=False): plain, image_name(1, bootable=True): booted}
    write_documents(repository, documents, names)
    repository.streams.set_ref(f"oci/{tag}", f"oci-manifest-{source.manifest_digest}")
    return booted


def test_the_wrong_layer_of_another_tool_is_replaced(
    repository: Repository,
    source: LayoutSource,
    fetched: list[int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    wrong_image = store_as_another_tool(repository, source, (LAYERS[0], FLIPPED, LAYERS[2]))
    right = compute_image_id(source)
    fetched.clear()
    assert right != wrong_image
    pulled = pull(repository, source)
    assert pulled.image_id == right
    assert fetched == [1]
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.getMessage().startswith(f"fetching the stored layer {DIFF_IDS[1]} again: ")
    assert images.sha256(FLIPPED) in warning.getMessage()
    # Nothing of the image leads to the wrong one any more.
    image = read_image(repository, pulled.manifest_digest)
    assert wrong_image not in image.images.values()
    assert sound(repository)
    # Who booted the wrong image can do so again.
    objects = objects_of(repository.objects, wrong_image)
    assert repository.images.exists(wrong_image)
    collect(repository, roots=[wrong_image.hex])
    assert repository.images.exists(wrong_image)
    assert repository.objects.missing([wrong_image, *objects]) == []
    assert sound(repository)


def test_a_boot_image_of_a_wrong_layer_is_forgotten_by_a_plain_pull(
    repository: Repository, source: LayoutSource
) -> None:
    wrong_image = store_as_another_tool(repository, source, (LAYERS[0], FLIPPED, LAYERS[2]))
    pull(repository, source, bootable=False, tag="theirs")
    image = find_image(repository, "theirs")
    assert image.made(1, bootable=True) is None
    assert match_boot_image(repository, image, wrong_image) is None
    right = compute_image_id(source)
    matched = match_boot_image(repository, image, right)
    assert matched is not None
    assert matched.image_id == right


def comparisons(events: list[Event]) -> list[str]:
    return [event.task for event in events if isinstance(event, Start) and "compare" in event.task]


def test_a_right_layer_of_another_tool_is_compared_once(
    repository: Repository, source: LayoutSource, fetched: list[int]
) -> None:
    booted = store_as_another_tool(repository, source, LAYERS)
    events: list[Event] = []
    assert pull(repository, source, events.append).image_id == booted
    assert comparisons(events) == [f"compare:{diff_id[7:19]}" for diff_id in DIFF_IDS]
    events.clear()
    assert pull(repository, source, events.append).image_id == booted
    assert comparisons(events) == []
    assert fetched == []


def test_what_was_pulled_needs_no_comparison(repository: Repository, source: LayoutSource) -> None:
    pull(repository, source)
    events: list[Event] = []
    pull(repository, source, events.append)
    assert comparisons(events) == []


def test_a_stream_put_in_the_place_of_a_compared_one_is_compared(
    repository: Repository, source: LayoutSource, fetched: list[int]
) -> None:
    pulled = pull(repository, source)
    fetched.clear()
    stream = split_layer(io.BytesIO(FLIPPED), OciDigest.of(FLIPPED), repository.objects)
    repository.streams.write(f"oci-layer-{DIFF_IDS[1]}", stream)
    assert pull(repository, source).image_id == pulled.image_id
    assert fetched == [1]
    assert sound(repository)


@pytest.mark.parametrize("what", ["link to nothing", "file", "directory", "link elsewhere"])
def test_a_mark_that_is_none_costs_a_comparison(
    repository: Repository, source: LayoutSource, fetched: list[int], what: str
) -> None:
    pull(repository, source)
    fetched.clear()
    mark = Path(repository.dir.path, "verified", f"oci-layer-{DIFF_IDS[1]}")
    mark.unlink()
    match what:
        case "file":
            mark.write_bytes(b"")
        case "directory":
            mark.mkdir()
        case "link elsewhere":
            mark.symlink_to("/etc/passwd")
        case _:
            mark.symlink_to(f"../objects/ab/{'0' * 126}")
    events: list[Event] = []
    pull(repository, source, events.append)
    assert comparisons(events) == [f"compare:{DIFF_IDS[1][7:19]}"]
    assert fetched == []
    assert repository.streams.verified(mark.name) == stream_of(repository, 1)


def test_marks_go_with_their_streams(repository: Repository, source: LayoutSource) -> None:
    pull(repository, source, tag="x")
    marks = Path(repository.dir.path, "verified")
    config = parse_documents(source, None)[0].config.digest
    names = {f"oci-config-{config}", *(f"oci-layer-{diff_id}" for diff_id in DIFF_IDS)}
    assert {path.name for path in marks.iterdir()} == names
    (marks / "odd").write_bytes(b"")
    (marks / "other").symlink_to("nowhere")
    report = collect(repository)
    assert {path.name for path in marks.iterdir()} == {*names, "odd"}
    assert any("odd" in warning for warning in report.warnings)
    # A mark is no reference.
    repository.streams.remove_ref("oci/x")
    collect(repository, dry_run=True)
    assert {path.name for path in marks.iterdir()} == {*names, "odd"}
    collect(repository)
    assert [path.name for path in marks.iterdir()] == ["odd"]
    assert repository.streams.find(f"oci-layer-{DIFF_IDS[0]}") is None


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(b"")


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_away(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


@pytest.mark.parametrize("spoil", [remove, truncate, zero, make_fifo, link_away])
@pytest.mark.parametrize("number", range(len(LAYERS)))
def test_a_spoiled_stream_is_fetched_again(
    repository: Repository,
    source: LayoutSource,
    fetched: list[int],
    spoil: Callable[[Path], None],
    number: int,
) -> None:
    pulled = pull(repository, source)
    fetched.clear()
    spoil(path_of(repository, stream_of(repository, number)))
    assert pull(repository, source).image_id == pulled.image_id
    assert fetched == [number]
    assert sound(repository)


def test_a_directory_in_place_of_an_object_is_for_a_repair(
    repository: Repository, source: LayoutSource, fetched: list[int]
) -> None:
    pulled = pull(repository, source)
    path = path_of(repository, stream_of(repository, 1))
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError) as caught:
        pull(repository, source)
    assert str(path) in one_line(caught.value)
    # What could not be stored is lost to this handle.
    repository.close()
    with (
        Dir.open(Path(repository.dir.path).parent) as parent,
        Repository.open(parent, require_verity=False, writable=True) as again,
    ):
        repair(again, check(again))
        assert pull(again, source).image_id == pulled.image_id
        assert sound(again)


def test_any_object_that_is_missing_comes_back(
    repository: Repository, source: LayoutSource, fetched: list[int]
) -> None:
    pulled = pull(repository, source)
    assert sound(repository)
    objects = sorted(Path(repository.dir.path, "objects").glob("*/*"))
    # Files, streams of layers, the image, two documents and their streams.
    assert len(objects) == 4 + 3 + 1 + 4
    of_layers = {
        path_of(repository, digest)
        for number in range(len(LAYERS))
        for digest in (
            stream_of(repository, number),
            *StreamReader(repository.streams.read(f"oci-layer-{DIFF_IDS[number]}")).object_refs,
        )
    }
    for path in objects:
        fetched.clear()
        path.unlink()
        assert pull(repository, source).image_id == pulled.image_id
        assert len(fetched) == (path in of_layers)
        assert sound(repository), path


def test_several_objects_of_one_directory(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directories are listed or looked into, by how much is asked for."""
    files = [file(f"usr/f{number}", b"%d" % number * 100) for number in range(3000)]
    layout = images.single(tmp_path / "many", images.bootable(*files))
    with open_layout(ImageReference.parse(layout.reference()), images.ARCHITECTURE) as source:
        pull(repository, source)
        diff_id = images.sha256(images.bootable(*files))
        objects = StreamReader(repository.streams.read(f"oci-layer-{diff_id}")).object_refs
        gone = set(objects[::700])
        for digest in gone:
            path_of(repository, digest).unlink()
        # One in the place of which there is something else.
        odd = objects[1]
        path_of(repository, odd).unlink()
        path_of(repository, odd).symlink_to("/etc/passwd")
        for listed_from in (0, 32, 10_000):
            monkeypatch.setattr("bootc.repository.objects._LIST_FROM", listed_from)
            assert set(repository.objects.missing(objects)) == gone | {odd}
        path_of(repository, odd).unlink()
        pull(repository, source)
    assert repository.objects.missing(objects) == []
    assert sound(repository)


def test_another_kind_of_stream_is_replaced(
    repository: Repository, source: LayoutSource, fetched: list[int]
) -> None:
    pulled = pull(repository, source)
    fetched.clear()
    blob = StreamWriter(repository.algorithm, b"oci_blob")
    blob.inline(LAYERS[1])
    repository.streams.write(f"oci-layer-{DIFF_IDS[1]}", blob.finish())
    repository.streams.write(f"oci-layer-{DIFF_IDS[2]}", b"garbage")
    assert pull(repository, source).image_id == pulled.image_id
    assert fetched == [1, 2]
    assert sound(repository)


def test_a_disk_that_fails_is_no_damage(
    repository: Repository, source: LayoutSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled: Pulled = pull(repository, source)
    stream = stream_of(repository, 1)
    read = Objects.read

    def failing(self: Objects, digest: Digest, *, limit: int | None = None) -> bytes:
        if digest == stream:
            raise PermissionError(13, "Permission denied")
        return read(self, digest, limit=limit)

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "read", failing)
        with pytest.raises(PermissionError):
            pull(repository, source)
    assert pull(repository, source, null_sink).image_id == pulled.image_id
