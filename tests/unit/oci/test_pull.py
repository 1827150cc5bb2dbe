from __future__ import annotations

import dataclasses
import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bootc.errors import Error, one_line
from bootc.events import Done, Event, Progress, Start, null_sink
from bootc.formats import splitstream
from bootc.formats.digest import Algorithm, Digest, DigestMismatch, OciDigest
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import ImageSpecError, WrongArchitecture
from bootc.formats.splitstream import StreamReader
from bootc.formats.tar import TarError
from bootc.formats.tree import Inline, Leaf
from bootc.fs.dir import Dir
from bootc.oci import pull
from bootc.oci.layoutdir import LayoutSource, open_layout
from bootc.oci.pull import compute_image_id
from bootc.oci.seal import SealError, XattrMode
from bootc.oci.selabel import LabelError
from bootc.oci.unpack import LayerError
from bootc.repository.content import read_content
from bootc.repository.repository import Repository
from support import images
from support.images import directory, file, hardlink, layer, symlink


@contextmanager
def opened(layout: images.Layout, tag: str | None = None) -> Iterator[LayoutSource]:
    reference = ImageReference.parse(layout.reference(tag))
    with open_layout(reference, images.ARCHITECTURE) as source:
        yield source


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    target = tmp_path / "target"
    target.mkdir()
    with (
        Dir.open(target) as root,
        Repository.create(root, algorithm=Algorithm.SHA512, secure=False) as repository,
    ):
        yield repository


def image_id(layout: images.Layout, **options: object) -> str:
    with opened(layout) as source:
        return compute_image_id(source, **options).hex  # type: ignore[arg-type]


def test_pinned_image_id(tmp_path: Path) -> None:
    # composefs 0.9 specification, "End-to-end OCI layout pins", row V1
    layout = images.single(
        tmp_path / "layout",
        layer(
            directory("usr/"),
            file("hello.txt", b"hello from test layer\n"),
            hardlink("hello-link.txt", "hello.txt"),
            format=tarfile.GNU_FORMAT,
        ),
    )
    assert image_id(layout, bootable=False) == (
        "d06f1f6a73f62ed48e05ce9442ff045cdf2a9f5ba1ec623795de3d6177a253d9"
        "1076459795d94f55d8c3d71dab458bb3fc0071255a50c0a4896d86ffdc870b9a"
    )
    assert image_id(layout, bootable=False, algorithm=Algorithm.SHA256) == (
        "ca4c0cedfe7cf4e19090b65126e5b2ccc2e7fb4eef2af2a1bcdebe7488d5790b"
    )


@pytest.mark.parametrize("bootable", [False, True])
def test_pinned_boot_image_id(tmp_path: Path, bootable: bool) -> None:
    layout = images.single(
        tmp_path / "layout",
        layer(
            *(directory(name) for name in ("usr", "boot", "sysroot")),
            file("usr/hello.txt", b"hello from bootable test layer\n"),
            format=tarfile.GNU_FORMAT,
        ),
        compression="zstd",
    )
    assert image_id(layout, bootable=bootable) == (
        "afcf5265d299516bc4f3f34f0f6bae2dc42dd6c24711121141140f39d8cc2b1f"
        "3fcf18bb0a5c3f4db21065783f76e920458f93cd81bb09c24cdb6968b4165e89"
    )


def test_pull_fills_the_repository(tmp_path: Path, repository: Repository) -> None:
    big = b"kernel" * 100
    base = images.bootable(kernel=big, initramfs=b"initramfs" * 50)
    top = layer(file("boot/stale", b"x"), symlink("usr/link", "target"))
    layout = images.single(tmp_path / "layout", base, top)
    events: list[Event] = []
    with opened(layout) as source:
        wanted = compute_image_id(source)
        pulled = pull.pull(repository, source, events.append)
        assert pull.required_bytes(source) == sum(d.size_bytes for d in source.layers)

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

    task = f"layer:{diff_ids[0][7:19]}"
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
        first = pull.pull(repository, source)
        before = state()
        # What is there already is not asked for.
        layout.blob_path(str(source.layers[0].digest)).unlink()
        events: list[Event] = []
        second = pull.pull(repository, source, events.append)
    assert second.image_id == first.image_id
    assert state() == before
    assert Done(f"layer:{images.sha256(images.bootable())[7:19]}", cached=True) in events


def test_only_layers_that_are_missing_need_room(tmp_path: Path, repository: Repository) -> None:
    base = images.bootable(kernel=b"kernel", initramfs=b"initramfs")
    with opened(images.single(tmp_path / "old", base)) as source:
        assert pull.required_bytes(source, repository) == source.layers[0].size_bytes
        pull.pull(repository, source)
        assert pull.required_bytes(source, repository) == 0
    with opened(images.single(tmp_path / "new", base, layer(file("usr/new", b"x")))) as source:
        assert pull.required_bytes(source, repository) == source.layers[1].size_bytes
        assert pull.required_bytes(source) > source.layers[1].size_bytes


def test_references_of_other_tools_are_kept(tmp_path: Path, repository: Repository) -> None:
    layout = images.single(tmp_path / "layout", images.bootable())
    other = Digest(Algorithm.SHA512, bytes(range(64)))
    with opened(layout) as source:
        pulled = pull.pull(repository, source)
        name = f"oci-config-{pulled.config_digest}"
        writer = splitstream.StreamWriter(Algorithm.SHA512, splitstream.OCI_CONFIG)
        writer.refer("composefs.image.boot", other)
        writer.external(repository.objects.put(source.config_raw), len(source.config_raw))
        repository.streams.write(name, writer.finish())
        pull.pull(repository, source)
    named = StreamReader(repository.streams.read(name)).named_refs
    assert named["composefs.image.boot"] == other
    assert named["composefs.image.boot.v1"] == pulled.image_id


def test_not_bootable_image_is_pulled_plain(tmp_path: Path, repository: Repository) -> None:
    layout = images.single(tmp_path / "layout", layer(directory("usr")))
    with opened(layout) as source:
        with pytest.raises(SealError, match="no directory /boot"):
            pull.pull(repository, source)
        assert repository.images.names() == []
        pulled = pull.pull(repository, source, bootable=False)
    assert repository.images.names() == [pulled.image_id.hex]


CONTEXTS = "etc/selinux/targeted/contexts/files"
RULES = b"/.* s:default\n/usr(/.*)? s:usr\n/usr/bin/.* -- s:bin\n/bin/.* s:wrong\n"


@pytest.mark.parametrize("padding", ["", "#" * 100])
def test_selinux_labels(tmp_path: Path, repository: Repository, padding: str) -> None:
    # Inline, and as objects that a computation without repository has to fetch again.
    note = f"{padding}\n".encode()
    config = note + b"SELINUX=enforcing\n SelinuxType = targeted\n"
    layout = images.single(
        tmp_path / "layout",
        images.bootable(directory("bin"), file("bin/tool", b"t" * 100)),
        layer(
            *(directory(d) for d in ("etc", "etc/selinux", "etc/selinux/targeted")),
            file("etc/first", b"1" * 1000),
            file("etc/selinux/config", config),
            file(f"{CONTEXTS}/file_contexts", RULES + note),
            file(f"{CONTEXTS}/file_contexts.bin", b"#" * 5000),
        ),
        layer(file(f"{CONTEXTS}/file_contexts.subs_dist", b"/bin /usr/bin\n" + note)),
    )
    with opened(layout) as source:
        pulled = pull.pull(repository, source)
        assert compute_image_id(source) == pulled.image_id
        tree = pull.image_tree(source).root
    booted = read_erofs(repository.objects.read(pulled.image_id))
    for root in (tree, booted):
        labels = {path: node.stat.xattrs.get(b"security.selinux") for path, node in root.walk()}
        assert labels[b"/"] == b"s:default"
        assert labels[b"/boot"] == b"s:default"
        assert labels[b"/bin"] == b"s:usr"
        assert labels[b"/bin/tool"] == b"s:bin"
    # What is not booted has no labels.
    assert not any(node.stat.xattrs for _, node in pulled.root.walk())


def test_selinux_policy_that_is_not_there(tmp_path: Path, repository: Repository) -> None:
    config = file("etc/selinux/config", b"SELINUXTYPE=targeted\n")
    layout = images.single(tmp_path / "layout", images.bootable(config))
    with opened(layout) as source:
        with pytest.raises(LabelError, match="'targeted' but has no /etc/selinux/targeted/"):
            pull.pull(repository, source)
        with pytest.raises(LabelError, match="'targeted' but has no /etc/selinux/targeted/"):
            compute_image_id(source)
    assert repository.images.names() == []


def test_user_xattrs_are_kept_on_demand(tmp_path: Path) -> None:
    pax = {**images.xattr("user.x", "u"), **images.xattr("trusted.x", "t")}
    layout = images.single(tmp_path / "layout", images.bootable(file("f", pax_headers=pax)))
    with opened(layout) as source:
        for mode, kept in (("allowlist-only", {}), ("keep-user-xattrs", {b"user.x": b"u"})):
            node = pull.image_tree(source, xattrs=XattrMode(mode)).root.entries[b"f"]
            assert node.stat.xattrs == kept


def test_selinux_without_policy_is_fine(tmp_path: Path) -> None:
    config = b"# SELINUXTYPE=no\nSELINUX=disabled\n" + b"#" * 80
    layout = images.single(tmp_path / "layout", images.bootable(file("etc/selinux/config", config)))
    assert len(image_id(layout)) == 128


def test_diff_id_mismatch(tmp_path: Path, repository: Repository) -> None:
    wrong = images.sha256(b"another layer")
    layout = images.single(
        tmp_path / "layout",
        images.bootable(),
        config={"rootfs": {"type": "layers", "diff_ids": [wrong]}},
    )
    with opened(layout) as source, pytest.raises(DigestMismatch) as caught:
        pull.pull(repository, source)
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
        pull.pull(repository, source)
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
            pull.pull(repository, source)


def test_layers_and_diff_ids_must_match(tmp_path: Path, repository: Repository) -> None:
    layout = images.single(
        tmp_path / "layout",
        images.bootable(),
        config={"rootfs": {"type": "layers", "diff_ids": []}},
    )
    with opened(layout) as source, pytest.raises(ImageSpecError, match="0 entries for 1 layers"):
        pull.pull(repository, source)


def test_other_architecture(tmp_path: Path, repository: Repository) -> None:
    other = images.OTHER_ARCHITECTURE
    layout = images.single(tmp_path / "layout", images.bootable(), config={"architecture": other})
    message = f"the image is for {other}, this machine is {images.ARCHITECTURE}"
    with opened(layout) as source, pytest.raises(WrongArchitecture, match=message):
        pull.pull(repository, source)
    with opened(layout) as source:
        assert compute_image_id(source, architecture=other).algorithm is Algorithm.SHA512


def test_source_that_changes_is_noticed(tmp_path: Path) -> None:
    config = b"#" * 100 + b"\n"
    layout = images.single(
        tmp_path / "layout", images.bootable(file("etc/selinux/config", config)), compression=""
    )

    class Turncoat:
        """A source whose blobs read right once only."""

        def __init__(self, source: LayoutSource) -> None:
            self.imgref = source.imgref
            self.manifest_digest = source.manifest_digest
            self.manifest_raw = source.manifest_raw
            self.config_raw = source.config_raw
            self.layers = source.layers
            self._data = layout.blob_path(str(source.layers[0].digest)).read_bytes()

        @contextmanager
        def blob(self, descriptor: object) -> Iterator[io.BytesIO]:
            yield io.BytesIO(self._data)
            self._data = self._data.replace(b"#", b"!")

    with opened(layout) as source, pytest.raises(DigestMismatch, match="changed while"):
        compute_image_id(Turncoat(source), null_sink)


def test_same_layer_twice(tmp_path: Path, repository: Repository) -> None:
    data = images.bootable()
    layout = images.single(tmp_path / "layout", data, data)
    with opened(layout) as source:
        pulled = pull.pull(repository, source)
        assert pulled.image_id == compute_image_id(source)
    assert pulled.config.diff_ids == (OciDigest.of(data),) * 2


@pytest.mark.parametrize("document", ["manifest_raw", "config_raw"])
def test_nothing_is_stored_under_another_digest(
    tmp_path: Path, repository: Repository, document: str
) -> None:
    """Whatever a source says, the digest of a document is computed where it is stored."""
    layout = images.single(tmp_path / "layout", images.bootable())
    with opened(layout) as source:
        lying = dataclasses.replace(source, **{document: getattr(source, document) + b" "})
        with pytest.raises(DigestMismatch, match="instead of sha256:"):
            pull.pull(repository, lying)
    assert repository.streams.refs() == {}
    assert [name for name in repository.streams.names() if "layer" not in name] == []
