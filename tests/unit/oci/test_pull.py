"""Images pulled into a repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.errors import Error, UsageError, one_line
from bootc.events import Done, Event, Progress, Start
from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, DigestMismatch, OciDigest
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.ocispec import ImageSpecError, WrongArchitecture
from bootc.formats.splitstream import StreamReader
from bootc.formats.tarvalues import TarError
from bootc.formats.tree import Inline, Leaf
from bootc.fs.dir import Dir
from bootc.oci.blob import LayerError
from bootc.oci.names import image_name
from bootc.oci.pull import Pulled, pull, required_bytes
from bootc.oci.seal import SealError
from bootc.oci.stored import read_image
from bootc.oci.trees import image_id_of, image_tree
from bootc.repository import gc
from bootc.repository.content import read_content
from bootc.repository.metadata import ErofsFormats, Metadata
from bootc.repository.repository import Repository
from bootc.repository.tally import Tally
from support import images
from support.images import compute_image_id, directory, file, layer, opened, symlink
from support.layers import LAYERS, path_of


def test_pull_fills_the_repository(tmp_path: Path, repository: Repository) -> None:
    big = b"kernel" * 100
    base = images.bootable(kernel=big, initramfs=b"initramfs" * 50)
    top = layer(file("boot/stale", b"x"), symlink("usr/link", "target"))
    layout = images.single(tmp_path / "layout", base, top)
    events: list[Event] = []
    with opened(layout) as source:
        wanted = compute_image_id(source)
        pulled = pull(repository, source, events.append)
        assert required_bytes(source) == sum(d.size_bytes for d in source.layers)

    assert pulled.image_id == wanted
    streams = repository.streams
    manifest_id = f"oci-manifest-{pulled.manifest_digest}"
    tag = f"oci/localhost%2Fbootc-{pulled.manifest_digest}"
    assert streams.refs() == {tag: manifest_id}

    manifest = StreamReader(streams.read(manifest_id))
    assert manifest.content_type == splitstream.OCI_MANIFEST
    assert repository.objects.read(manifest.external()) == source.manifest_raw
    diff_ids = [images.sha256(base), images.sha256(top)]
    assert set(manifest.named_refs) == {f"config:{pulled.config_digest}", *diff_ids}

    config = StreamReader(streams.read(f"oci-config-{pulled.config_digest}"))
    assert config.content_type == splitstream.OCI_CONFIG
    assert list(config.chunks()) == [repository.objects.put(source.config_raw)]
    assert config.named_refs["composefs.image.boot.v1"] == wanted
    assert config.named_refs[diff_ids[0]] == streams.digest_of(f"oci-layer-{diff_ids[0]}")
    plain = config.named_refs["composefs.image.v1"]
    assert plain != wanted
    assert sorted(repository.images.names()) == sorted([plain.hex, wanted.hex])

    booted = read_erofs(repository.objects.read(wanted))
    assert booted.lookup("boot/stale") is None
    kept = pulled.root.lookup("boot/stale")
    assert isinstance(kept, Leaf)
    assert kept.content == Inline(b"x")
    kernel = booted.lookup("usr/lib/modules/6.12.0-test/vmlinuz")
    assert isinstance(kernel, Leaf)
    assert read_content(repository.objects, kernel.content) == big  # type: ignore[arg-type]

    task = f"layer:{diff_ids[0]}"
    size = source.layers[0].size_bytes
    assert [e for e in events if getattr(e, "task", "") == task] == [
        Start(task, f"Layer {diff_ids[0][7:19]}", size),
        Progress(task, size),
        Done(task),
    ]
    assert events[-1] == Done("image")


def test_pulling_again_changes_nothing(tmp_path: Path, repository: Repository) -> None:
    layout = images.single(tmp_path / "layout", images.bootable())

    def state() -> list[tuple[str, str]]:
        root = Path(repository.dir.path)
        return sorted(
            (str(p.relative_to(root)), str(p.readlink()) if p.is_symlink() else "")
            for p in root.rglob("*")
        )

    with opened(layout) as source:
        first = pull(repository, source)
        before = state()
        # What is there already is not asked for.
        layout.blob_path(str(source.layers[0].digest)).unlink()
        events: list[Event] = []
        second = pull(repository, source, events.append)
    assert second.image_id == first.image_id
    assert state() == before
    assert Done(f"layer:{images.sha256(images.bootable())}", cached=True) in events


def test_a_pull_leaves_no_garbage(tmp_path: Path, repository: Repository) -> None:
    with opened(images.single(tmp_path / "layout", *LAYERS)) as source:
        pulled = pull(repository, source)
    found = gc.collect(repository, roots=[pulled.image_id.hex], dry_run=True)
    assert (found.objects_removed, found.images_pruned, found.streams_pruned) == (0, 0, 0)


@pytest.mark.parametrize(
    "formats",
    [ErofsFormats(1), ErofsFormats(2), ErofsFormats(1, (2,)), None],
    ids=["V1", "V2", "both", "older than the choice"],
)
def test_images_have_the_formats_of_the_repository(
    tmp_path: Path, formats: ErofsFormats | None
) -> None:
    features = ("v1_erofs",) if formats and formats.default == 1 else ()
    metadata = Metadata(read_only_compatible=features, erofs_formats=formats)
    (tmp_path / "composefs/objects").mkdir(parents=True)
    (tmp_path / "composefs/meta.json").write_bytes(metadata.to_bytes())
    with (
        Dir.open(tmp_path) as root,
        Repository.open(root, require_verity=False, writable=True) as repository,
        opened(images.single(tmp_path / "layout", images.bootable())) as source,
    ):
        pulled = pull(repository, source)
        stored = read_image(repository, pulled.manifest_digest)
        tree = image_tree(source).root
        wanted = formats.all if formats else (2,)
        assert pulled.image_id == image_id_of(tree, version=wanted[0])
        assert stored.images.keys() == {
            image_name(version, bootable=boots) for version in wanted for boots in (True, False)
        }
        for version in wanted:
            assert repository.images.exists(image_id_of(tree, version=version))


def test_a_repository_of_a_format_that_has_no_name(tmp_path: Path) -> None:
    with (
        Dir.open(tmp_path) as root,
        Repository.create(root, erofs_format=0, secure=False) as repository,
        opened(images.single(tmp_path / "layout", images.bootable())) as source,
        pytest.raises(UsageError, match="cannot have version 0"),
    ):
        pull(repository, source)


def test_only_layers_that_are_missing_need_room(tmp_path: Path, repository: Repository) -> None:
    base = images.bootable(kernel=b"kernel", initramfs=b"initramfs")
    with opened(images.single(tmp_path / "old", base)) as source:
        assert required_bytes(source, repository) == source.layers[0].size_bytes
        pull(repository, source)
        assert required_bytes(source, repository) == 0
    with opened(images.single(tmp_path / "new", base, layer(file("usr/new", b"x")))) as source:
        assert required_bytes(source, repository) == source.layers[1].size_bytes
        assert required_bytes(source) > source.layers[1].size_bytes


def test_not_bootable_image_is_pulled_plain(tmp_path: Path, repository: Repository) -> None:
    layout = images.single(tmp_path / "layout", layer(directory("usr")))
    with opened(layout) as source:
        with pytest.raises(SealError, match="no directory /boot"):
            pull(repository, source)
        assert repository.images.names() == []
        pulled = pull(repository, source, bootable=False)
    assert repository.images.names() == [pulled.image_id.hex]


def test_diff_id_mismatch(tmp_path: Path, repository: Repository) -> None:
    wrong = images.sha256(b"another layer")
    layout = images.single(
        tmp_path / "layout",
        images.bootable(),
        config={"rootfs": {"type": "layers", "diff_ids": [wrong]}},
    )
    with opened(layout) as source, pytest.raises(DigestMismatch) as caught:
        pull(repository, source)
    assert f"instead of {wrong}" in one_line(caught.value)
    # The short name is that of progress.
    name = f"{wrong.partition(':')[2][:12]} (blob {source.layers[0].digest})"
    assert f"Unpacking layer {name}" in one_line(caught.value)
    assert not repository.streams.exists(f"oci-layer-{wrong}")


@pytest.mark.parametrize(
    ("compression", "damage", "error", "message"),
    [
        ("gzip", lambda data: data[:-20], LayerError, "truncated gzip"),
        ("gzip", lambda data: data[:40] + b"\xff" * 40 + data[80:], LayerError, "corrupt gzip"),
        ("gzip", lambda data: data + b"rubbish", LayerError, "corrupt gzip"),
        ("zstd", lambda data: data[:-10], LayerError, "truncated zstd"),
        ("zstd", lambda data: data[:4] + b"\xff" * 20 + data[24:], LayerError, "corrupt zstd"),
        ("", lambda data: data[:2000], TarError, "truncated body at offset 512"),
        ("", lambda data: b"x" + data[1:], TarError, "wrong header checksum at offset 0"),
    ],
)
def test_damaged_before_it_got_its_digest(
    tmp_path: Path,
    repository: Repository,
    compression: str,
    damage: object,
    error: type[Error],
    message: str,
) -> None:
    noise = bytes(i * i % 251 for i in range(5000))
    data = layer(file("noise", noise))
    layout = images.Layout(tmp_path / "layout")
    blob = damage(images.compress(data, compression))  # type: ignore[operator]
    descriptor = layout.blob(blob, images.LAYER_TYPE + images.SUFFIXES[compression])
    layout.image([data], manifest={"layers": [descriptor]})
    with opened(layout) as source, pytest.raises(error, match=message) as caught:
        pull(repository, source)
    assert descriptor["digest"] in one_line(caught.value)
    assert repository.streams.refs() == {}


@pytest.mark.parametrize("damage", [lambda d: d[:-20], lambda d: d[:50] + b"\0" * 9 + d[59:]])
def test_damaged_blob_is_called_by_its_digest(
    tmp_path: Path, repository: Repository, damage: object
) -> None:
    layout = images.single(tmp_path / "layout", images.bootable())
    with opened(layout) as source:
        path = layout.blob_path(str(source.layers[0].digest))
        path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
        with pytest.raises(DigestMismatch, match=f"blob {source.layers[0].digest}"):
            pull(repository, source)


def test_layers_and_diff_ids_must_match(tmp_path: Path, repository: Repository) -> None:
    layout = images.single(
        tmp_path / "layout",
        images.bootable(),
        config={"rootfs": {"type": "layers", "diff_ids": []}},
    )
    with opened(layout) as source, pytest.raises(ImageSpecError, match="0 entries for 1 layers"):
        pull(repository, source)


def test_other_architecture(tmp_path: Path, repository: Repository) -> None:
    other = images.OTHER_ARCHITECTURE
    layout = images.single(tmp_path / "layout", images.bootable(), config={"architecture": other})
    message = f"the image is for {other}, this machine is {images.ARCHITECTURE}"
    with opened(layout) as source, pytest.raises(WrongArchitecture, match=message):
        pull(repository, source)
    with opened(layout) as source:
        assert compute_image_id(source, architecture=other).algorithm is Algorithm.SHA512


def test_same_layer_twice(tmp_path: Path, repository: Repository) -> None:
    data = images.bootable()
    layout = images.single(tmp_path / "layout", data, data)
    with opened(layout) as source:
        pulled = pull(repository, source)
        assert pulled.image_id == compute_image_id(source)
    assert pulled.config.diff_ids == (OciDigest.of(data),) * 2


def test_every_image_counts_what_it_added(repository: Repository, pulled: Pulled) -> None:
    inlined = sum(map(len, LAYERS)) - 12600
    assert pulled.amount.objects == Tally(new=4, new_bytes=12600)
    assert pulled.amount.inlined_bytes == inlined
    big = b"two" * 1000
    # An object that is replaced is new.
    repository.objects.flush()
    path = path_of(repository, repository.objects.put(big))
    path.unlink()
    path.write_bytes(bytes(len(big)))
    before = repository.objects.tally
    repository.objects.put(big)
    assert repository.objects.tally - before == Tally(new=1, new_bytes=3000)
    repository.objects.put(big)
    after = Tally(new=1, new_bytes=3000, present=1, present_bytes=3000)
    assert repository.objects.tally - before == after
