"""Stored layers, read back."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from bootc.formats import splitstream
from bootc.formats.digest import DigestMismatch, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.splitstream import SplitstreamError, StreamWriter
from bootc.formats.tar import HeaderReader
from bootc.formats.tree import Inline
from bootc.oci import layers
from bootc.oci.layers import LayerNotStored, check_layer, dump_layer, layer_archive
from bootc.oci.layoutdir import open_layout
from bootc.oci.pull import Pulled, pull
from bootc.oci.stored import find_config
from bootc.oci.trees import config_tree
from bootc.repository.repository import Repository
from support import images
from support.images import directory, file, layer, member
from support.layers import DIFF_IDS, FLIPPED, LAYERS

TOP_ID = OciDigest.parse(DIFF_IDS[1])


ABSENT = OciDigest.of(b"absent")


def test_an_archive_comes_back(repository: Repository, pulled: Pulled) -> None:
    for archive in LAYERS:
        diff_id = OciDigest.parse(images.sha256(archive))
        assert b"".join(layer_archive(repository, diff_id)) == archive
    with pytest.raises(LayerNotStored, match=f"there is no layer {ABSENT}"):
        check_layer(repository, ABSENT)


def test_an_archive_that_is_another_one(repository: Repository, pulled: Pulled) -> None:
    stream = StreamWriter(repository.algorithm, splitstream.OCI_LAYER)
    stream.inline(FLIPPED)
    repository.streams.write(f"oci-layer-{TOP_ID}", stream.finish())
    with pytest.raises(DigestMismatch, match=f"stored layer {TOP_ID}"):
        check_layer(repository, TOP_ID)
    with pytest.raises(DigestMismatch, match=f"stored layer {TOP_ID}"):
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
    assert layers._line(entry, Inline(b"")).split(b" ")[0] == shown.encode()
    raw = layer(file("first", b""), member("second", b"1", linkname=path))
    _, link = HeaderReader(io.BytesIO(raw).read)
    assert layers._line(link, Inline(b"")).split(b" ")[8] == shown.encode()


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
    assert layers._line(entry, Inline(b"")).split(b" ")[2] == shown.encode()
