"""Images read back from a repository, also where somebody has meddled with it."""

from __future__ import annotations

import io
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.errors import one_line
from bootc.formats import splitstream
from bootc.formats.digest import Digest, DigestMismatch, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.splitstream import SplitstreamError, StreamReader, StreamWriter
from bootc.formats.tar import Entry, HeaderReader, Kind
from bootc.formats.tree import Inline
from bootc.fs.dir import Dir
from bootc.oci import layers
from bootc.oci.boot_image import BootImage, match_boot_image
from bootc.oci.documents import read_documents
from bootc.oci.flatten import FlattenError
from bootc.oci.layers import LayerNotStored, check_layer, dump_layer, layer_archive
from bootc.oci.layoutdir import open_layout
from bootc.oci.names import XattrMode, image_name, tag_of
from bootc.oci.pull import Pulled, pull
from bootc.oci.stored import artifact_of, find_config, find_image, list_images, read_image
from bootc.oci.tags import BadTag, NotStored, referrers, tag_image, tag_names, tagged, untag_image
from bootc.oci.trees import config_tree
from bootc.repository.objects import Tally
from bootc.repository.repository import Repository
from support import images
from support.images import directory, file, layer, member

BIG = b"big" * 1000
LAYERS = (images.bootable(kernel=b"kernel" * 1000), layer(file("usr/big", BIG)))
TOP_ID = OciDigest.parse(images.sha256(LAYERS[1]))
ABSENT = OciDigest.of(b"absent")


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Dir.open(tmp_path) as root, Repository.create(root, secure=False) as repository:
        yield repository


@pytest.fixture
def pulled(repository: Repository, tmp_path: Path) -> Pulled:
    layout = images.single(tmp_path / "layout", *LAYERS)
    with open_layout(ImageReference.parse(layout.reference()), images.ARCHITECTURE) as source:
        return pull(repository, source, tag="os")


def write_document(repository: Repository, name: str, kind: bytes, raw: bytes) -> None:
    stream = StreamWriter(repository.algorithm, kind)
    stream.external(repository.objects.put(raw), len(raw))
    repository.streams.write(name, stream.finish())


def test_an_image_is_read_back(repository: Repository, pulled: Pulled) -> None:
    image = find_image(repository, "os")
    assert image.documents.manifest_digest == pulled.manifest_digest
    assert image.documents.config_digest == pulled.config_digest
    assert image.documents.diff_ids == pulled.config.diff_ids
    assert image.config == pulled.config
    assert image.made(1, bootable=True) == pulled.image_id
    assert image.made(2, bootable=True) is None
    # There are no images of version 0, and no name for one.
    assert image.made(0, bootable=True) is None
    assert find_image(repository, f"@{pulled.manifest_digest}") == image
    assert dict(list_images(repository)) == {"os": image}
    assert find_config(repository, "os") == image.stored_config
    assert image.stored_config.digest == pulled.config_digest


def test_names_of_images_in_configurations() -> None:
    # composefs 0.9, "Streams written for an OCI image"
    assert image_name(2, bootable=False) == "composefs.image"
    assert image_name(1, bootable=False) == "composefs.image.v1"
    assert image_name(2, bootable=True) == "composefs.image.boot"
    keep = XattrMode.KEEP_USER_XATTRS
    name = "composefs.image.boot.v1.xattrs=keep-user-xattrs"
    assert image_name(1, bootable=True, xattrs=keep) == name


def test_every_image_counts_what_it_added(
    repository: Repository, pulled: Pulled, tmp_path: Path
) -> None:
    inlined = sum(map(len, LAYERS)) - 6000 - 3000
    assert pulled.amount.objects == Tally(new=2, new_bytes=9000)
    assert pulled.amount.inlined_bytes == inlined
    # An object that is replaced is new.
    repository.objects.flush()
    path = Path(repository.dir.path, "objects", repository.objects.put(BIG).object_path)
    path.unlink()
    path.write_bytes(bytes(len(BIG)))
    before = repository.objects.tally
    repository.objects.put(BIG)
    assert repository.objects.tally - before == Tally(new=1, new_bytes=3000)
    repository.objects.put(BIG)
    after = Tally(new=1, new_bytes=3000, present=1, present_bytes=3000)
    assert repository.objects.tally - before == after


def test_tags_come_and_go(repository: Repository, pulled: Pulled) -> None:
    tag_image(repository, pulled.manifest_digest, "a/b%:1")
    assert tag_names(repository) == ["a/b%:1", "os"]
    assert repository.streams.refs()["oci/a%2Fb%25:1"] == f"oci-manifest-{pulled.manifest_digest}"
    assert tagged(repository, "a/b%:1") == pulled.manifest_digest
    untag_image(repository, "a/b%:1")
    for gone in (lambda: untag_image(repository, "a/b%:1"), lambda: tagged(repository, "a/b%:1")):
        with pytest.raises(NotStored, match=r"no image is tagged 'a/b%:1'"):
            gone()
    with pytest.raises(NotStored, match=f"there is no image {ABSENT}"):
        tag_image(repository, ABSENT, "new")
    assert tag_names(repository) == ["os"]


def test_bootc_s_own_tag_where_none_is_given(repository: Repository, tmp_path: Path) -> None:
    layout = images.single(tmp_path / "layout", *LAYERS)
    with open_layout(ImageReference.parse(layout.reference()), images.ARCHITECTURE) as source:
        pulled = pull(repository, source)
    assert list(repository.streams.refs()) == [tag_of(pulled.manifest_digest)]
    assert tag_names(repository) == [f"localhost/bootc-{pulled.manifest_digest}"]


@pytest.mark.parametrize("tag", ["@x", "", ".", "..", "a\0b", "/" * 86])
def test_bad_tags(repository: Repository, pulled: Pulled, tag: str) -> None:
    for use in (
        lambda: tagged(repository, tag),
        lambda: tag_image(repository, pulled.manifest_digest, tag),
        lambda: untag_image(repository, tag),
    ):
        with pytest.raises(BadTag):
            use()


def test_what_is_no_tag_is_left_out(
    repository: Repository, pulled: Pulled, caplog: pytest.LogCaptureFixture
) -> None:
    tags = Path(repository.dir.path, "streams/refs/oci")
    (tags / "directory").mkdir()
    (tags / "file").write_bytes(b"")
    (tags / "stream").symlink_to("../../oci-layer-sha256:1")
    (tags / "short").symlink_to("../../oci-manifest-sha256:12")
    (tags / "missing").symlink_to(f"../../oci-manifest-{ABSENT}")
    os.symlink("../../x", os.fsencode(tags) + b"/\xff")
    assert [tag for tag, _ in list_images(repository)] == ["os"]
    assert len(caplog.records) == 6
    for tag in ("stream", "short"):
        with pytest.raises(NotStored, match="which is not a manifest"):
            tagged(repository, tag)
    with pytest.raises(NotStored, match=f"there is no image {ABSENT}"):
        find_image(repository, "missing")


def test_a_document_that_is_another_one(repository: Repository, pulled: Pulled) -> None:
    name = f"oci-manifest-{pulled.manifest_digest}"
    write_document(repository, name, splitstream.OCI_MANIFEST, b"{}")
    with pytest.raises(DigestMismatch, match="has the digest sha256:44136fa"):
        read_image(repository, pulled.manifest_digest)
    write_document(repository, name, splitstream.OCI_CONFIG, b"{}")
    with pytest.raises(SplitstreamError, match="content type"):
        find_image(repository, "os")


def test_a_configuration_that_is_another_one(repository: Repository, pulled: Pulled) -> None:
    name = f"oci-config-{pulled.config_digest}"
    write_document(repository, name, splitstream.OCI_CONFIG, b"{}")
    found = find_config(repository, str(pulled.config_digest))
    with pytest.raises(DigestMismatch, match=f"{found.stream} has the digest"):
        config_tree(repository, found, bootable=False)
    # The image's own is by what its manifest refers to, wherever the link may lead.
    config_tree(repository, find_config(repository, "os"), bootable=False)


def test_a_configuration_whose_link_a_collection_took(
    repository: Repository, pulled: Pulled
) -> None:
    before = read_image(repository, pulled.manifest_digest)
    Path(repository.dir.path, f"streams/oci-config-{pulled.config_digest}").unlink()
    assert read_image(repository, pulled.manifest_digest) == before
    assert find_config(repository, "os") == before.stored_config


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"config": 1}',
        b"[" * 100000,
        b'{"config": {"mediaType": "x"}}',
    ],
)
def test_no_artifact(raw: bytes) -> None:
    assert artifact_of(raw) is None


def test_referrers(
    repository: Repository, pulled: Pulled, caplog: pytest.LogCaptureFixture
) -> None:
    assert referrers(repository, pulled.manifest_digest) == ()
    below = Path(repository.dir.path, "streams/refs/oci-referrers", str(pulled.manifest_digest))
    below.mkdir(parents=True)
    (below / str(ABSENT)).symlink_to("x")
    (below / "readme").write_bytes(b"")
    assert referrers(repository, pulled.manifest_digest) == (ABSENT,)
    assert [r.getMessage().rpartition("/")[2] for r in caplog.records] == [
        "'readme': the name is not a digest"
    ]


# -- layers


def test_an_archive_comes_back(repository: Repository, pulled: Pulled) -> None:
    for archive in LAYERS:
        diff_id = OciDigest.parse(images.sha256(archive))
        assert b"".join(layer_archive(repository, diff_id)) == archive
    with pytest.raises(LayerNotStored, match=f"there is no layer {ABSENT}"):
        check_layer(repository, ABSENT)


def test_an_archive_that_is_another_one(repository: Repository, pulled: Pulled) -> None:
    stream = StreamWriter(repository.algorithm, splitstream.OCI_LAYER)
    stream.inline(LAYERS[1].replace(b"big", b"bad"))
    repository.streams.write(f"oci-layer-{TOP_ID}", stream.finish())
    with pytest.raises(DigestMismatch, match=f"layer {TOP_ID} as it is stored"):
        check_layer(repository, TOP_ID)
    with pytest.raises(DigestMismatch, match=f"layer {TOP_ID} as it is stored"):
        config_tree(repository, find_config(repository, "os"), bootable=False)


def test_a_blob_is_no_archive(repository: Repository) -> None:
    stream = StreamWriter(repository.algorithm, b"oci_blob")
    stream.inline(b"blob")
    repository.streams.write(f"oci-layer-{ABSENT}", stream.finish())
    for read in (layer_archive, dump_layer):
        with pytest.raises(SplitstreamError, match="content type b'oci_blob'"):
            list(read(repository, ABSENT))


def test_lines_of_odd_entries(repository: Repository, tmp_path: Path) -> None:
    odd = layer(
        file("./a b", b"x\ny"),
        member("dev", b"3", mode=0o600, devmajor=1, devminor=3),
        member("fifo", b"6", mode=0o644),
        file("deep//./file/", b""),
    )
    layout = images.single(tmp_path / "layout", images.bootable(), odd)
    with open_layout(ImageReference.parse(layout.reference()), images.ARCHITECTURE) as source:
        pull(repository, source)
    time = b"%d.0" % images.MTIME
    lines = list(dump_layer(repository, OciDigest.parse(images.sha256(odd))))
    assert lines[:3] == [
        rb"/./a\x20b 3 100644 1 0 0 0 %s - x\ny -" % time + b"\n",
        b"/dev 0 20600 1 0 0 259 %s - - -\n" % time,
        b"/fifo 0 10644 1 0 0 0 %s - - -\n" % time,
    ]
    assert lines[3].startswith(b"/deep//./file 0 ")


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        # composefs-rs, make_absolute_path: a slash in front, and none at the end.
        ("usr/", "/usr"),
        ("usr//", "/usr"),
        ("/usr", "/usr"),
        ("./", "/."),
        (".", "/."),
        ("/", "-"),
        ("//usr", "//usr"),
        ("etc//a", "/etc//a"),
        ("usr/./a", "/usr/./a"),
        ("-", "/-"),
        ("a b", r"/a\x20b"),
    ],
)
def test_paths_are_those_of_the_archive(path: str, shown: str) -> None:
    raw = layer(directory(path) if path.endswith(("/", ".")) else file(path))
    (entry,) = HeaderReader(io.BytesIO(raw).read)
    assert layers._line(entry, Inline(b""), ABSENT).split(b" ")[0] == shown.encode()
    raw = layer(file("first", b""), member("second", b"1", linkname=path))
    _, link = HeaderReader(io.BytesIO(raw).read)
    assert layers._line(link, Inline(b""), ABSENT).split(b" ")[8] == shown.encode()


@pytest.mark.parametrize(
    ("mode", "kind", "shown"),
    [
        (0o644, b"0", "100644"),
        (0o100644, b"0", "100644"),
        (0o170644, b"0", "170644"),
        (0o1000644, b"0", "1100644"),
        (0o100755, b"5", "140755"),
        (0o120777, b"2", "120777"),
    ],
)
def test_modes_are_those_of_the_archive(mode: int, kind: bytes, shown: str) -> None:
    raw = layer(member("name", kind, linkname="x" if kind == b"2" else ""))
    # Python's tarfile leaves such bits out.
    field = b"%07o\0" % mode
    raw = raw[:100] + field + raw[108:]
    total = sum(raw[:148]) + 8 * 32 + sum(raw[156:512])
    raw = raw[:148] + b"%06o\0 " % total + raw[156:]
    (entry,) = HeaderReader(io.BytesIO(raw).read)
    assert entry.mode == mode & 0o7777
    assert layers._line(entry, Inline(b""), ABSENT).split(b" ")[2] == shown.encode()


# -- boot images


def test_a_match_is_found_again_and_made_again(repository: Repository, pulled: Pulled) -> None:
    def image_ids() -> dict[str, Digest]:
        stream = StreamReader(repository.streams.read(f"oci-config-{pulled.config_digest}"))
        return {k: v for k, v in stream.named_refs.items() if k.startswith("composefs")}

    before = image_ids()
    image = find_image(repository, "os")
    assert match_boot_image(repository, image, Digest.from_hex("ab" * 64)) is None
    found = match_boot_image(repository, image, pulled.image_id)
    assert found == BootImage(pulled.image_id, XattrMode.ALLOWLIST_ONLY, 1)
    assert image_ids() == before
    # It is named, and gone: it is made once more.
    os.unlink(f"{repository.dir.path}/images/{pulled.image_id}")
    assert match_boot_image(repository, image, pulled.image_id) == found
    assert repository.images.exists(pulled.image_id)
    assert image_ids() == before
    assert tagged(repository, "os") == pulled.manifest_digest


def test_sparse_files_have_no_line() -> None:
    entry = Entry(b"s", Kind.SPARSE, 0o644, 0, 0, 0, 0, 3, b"", 0, {}, 0, b"")
    with pytest.raises(FlattenError, match="a sparse file, which no dumpfile can express"):
        layers._line(entry, Inline(b"abc"), ABSENT)


@pytest.mark.parametrize("size", [3 << 30, 1 << 40])
@pytest.mark.parametrize("which", ["oci-manifest", "oci-config"])
def test_a_huge_file_in_place_of_a_document_takes_no_memory(
    repository: Repository, pulled: Pulled, size: int, which: str
) -> None:
    # What bootc status reads.
    names = {"oci-manifest": pulled.manifest_digest, "oci-config": pulled.config_digest}
    stream = repository.streams.digest_of(f"{which}-{names[which]}")
    os.truncate(f"{repository.dir.path}/objects/{stream.object_path}", size)
    tracemalloc.start()
    try:
        with pytest.raises(OSError, match="file is larger than 33554432 bytes") as caught:
            read_documents(repository, pulled.manifest_digest)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert stream.object_path in one_line(caught.value)
