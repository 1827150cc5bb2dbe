"""Trees of images and their ids, with and without a repository."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm, DigestMismatch
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.splitstream import StreamReader
from bootc.formats.tarvalues import TarError
from bootc.formats.verity import verity_digest
from bootc.oci import budget
from bootc.oci.layers import dump_layer, layer_archive
from bootc.oci.layoutdir import LayoutSource
from bootc.oci.names import XattrMode
from bootc.oci.pull import pull
from bootc.oci.selabel import LabelError
from bootc.oci.trees import image_tree
from bootc.repository.repository import Repository
from support import images, sparse
from support.images import compute_image_id, directory, file, hardlink, layer, opened
from support.layers import sound


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


@pytest.mark.parametrize("stated", ["", "+gzip", "+zstd"])
@pytest.mark.parametrize("compression", ["", "gzip", "zstd"])
def test_a_wrong_media_type_does_not_matter(tmp_path: Path, compression: str, stated: str) -> None:
    """`docker save` gives plain layers the type of compressed ones."""
    data = images.bootable(file("usr/f", b"f" * 100))
    layout = images.Layout(tmp_path / "layout")
    blob = layout.blob(images.compress(data, compression), images.LAYER_TYPE + stated)
    layout.image([data], manifest={"layers": [blob]})
    right = images.single(tmp_path / "right", data)
    assert image_id(layout) == image_id(right)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_times_before_1970(tmp_path: Path, repository: Repository, form: int) -> None:
    """EROFS keeps them in 64 bits, signed; the first version also parts of a second."""
    old = file("usr/old", mtime=-5), file("usr/older", mtime=-(2**40) - 0.25)
    members = directory("usr", mtime=-1), directory("boot"), directory("sysroot")
    layout = images.single(tmp_path / "layout", layer(*members, *old, format=form))
    with opened(layout) as source:
        pulled = pull(repository, source, erofs_formats=(1, 2))
        assert compute_image_id(source) == pulled.image_id
        root = image_tree(source).root
    first = read_erofs(repository.objects.read(pulled.image_id))
    second = read_erofs(mkfs_erofs(root, version=2))
    # Python cuts off parts of a second in the GNU format, towards 1970.
    older = (-(2**40), 0) if form == tarfile.GNU_FORMAT else (-(2**40) - 1, 750_000_000)
    wanted = {"": (-1, 0), "boot": (-1, 0), "usr/old": (-5, 0), "usr/older": older}
    for tree in (root, first, second):
        for path, (seconds, nanoseconds) in wanted.items():
            node = tree.lookup(path)
            assert node is not None
            kept = 0 if tree is second else nanoseconds
            assert (node.stat.mtime_s, node.stat.mtime_ns) == (seconds, kept), path


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
        pulled = pull(repository, source)
        assert compute_image_id(source) == pulled.image_id
        tree = image_tree(source).root
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
            pull(repository, source)
        with pytest.raises(LabelError, match="'targeted' but has no /etc/selinux/targeted/"):
            compute_image_id(source)
    assert repository.images.names() == []


def test_user_xattrs_are_kept_on_demand(tmp_path: Path) -> None:
    pax = {**images.xattr("user.x", "u"), **images.xattr("trusted.x", "t")}
    layout = images.single(tmp_path / "layout", images.bootable(file("f", pax_headers=pax)))
    with opened(layout) as source:
        for mode, kept in (("allowlist-only", {}), ("keep-user-xattrs", {b"user.x": b"u"})):
            node = image_tree(source, xattrs=XattrMode(mode)).root.entries[b"f"]
            assert node.stat.xattrs == kept


def test_selinux_without_policy_is_fine(tmp_path: Path) -> None:
    config = b"# SELINUXTYPE=no\nSELINUX=disabled\n" + b"#" * 80
    layout = images.single(tmp_path / "layout", images.bootable(file("etc/selinux/config", config)))
    assert len(image_id(layout)) == 128


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
        compute_image_id(Turncoat(source))


@pytest.mark.parametrize("form", sparse.FORMATS)
def test_sparse_files(tmp_path: Path, repository: Repository, form: str) -> None:
    """The image is that of the same files without holes, and the archive can be had again."""
    files: dict[str, tuple[int, list[sparse.Segment]]] = {
        "usr/holes": (300_000, [(5000, b"a" * 700), (200_000, b"b" * 70_000)]),
        # As objects and in the image; nothing but a hole; no hole at all.
        "usr/small": (60, [(10, b"c" * 20)]),
        "usr/zeros": (5000, []),
        "usr/tiny": (9, []),
        "usr/whole": (500, [(0, b"d" * 500)]),
    }
    base = images.bootable()
    data = b"".join(sparse.member(name, *made, form) for name, made in files.items())
    plain = layer(
        *(file(name, sparse.content_of(*made), mtime=0) for name, made in files.items()),
        file("usr/equal", b"d" * 500, mtime=0),
    )
    equal = layer(file("usr/equal", b"d" * 500, mtime=0))
    wanted = image_id(images.single(tmp_path / "plain", base, plain))
    layout = images.single(tmp_path / "layout", base, data + equal)
    assert image_id(layout) == wanted
    with opened(layout) as source:
        pulled = pull(repository, source, tag="os")
        assert pull(repository, source, tag="os").image_id == pulled.image_id
    assert pulled.image_id.hex == wanted
    assert b"".join(layer_archive(repository, pulled.config.diff_ids[1])) == data + equal
    # The content is needed, though it is no part of the archive.
    holes = verity_digest(sparse.content_of(*files["usr/holes"]), Algorithm.SHA512)
    stored = repository.streams.read(f"oci-layer-{pulled.config.diff_ids[1]}")
    assert holes in StreamReader(stored).object_refs
    assert sound(repository)
    lines = b"".join(dump_layer(repository, pulled.config.diff_ids[1]))
    assert b"/usr/holes 300000 100644" in lines


@pytest.mark.parametrize("form", sparse.FORMATS)
def test_holes_are_bounded(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_HOLE_BYTES", 100_000)
    data = b"".join(sparse.member(f"usr/{n}", 40_000, [(0, b"x" * 90)], form) for n in range(3))
    layout = images.single(tmp_path / "layout", images.bootable(), data)
    with pytest.raises(
        TarError, match="entry 'usr/2': sparse files of the layer have holes of more"
    ):
        image_id(layout)
