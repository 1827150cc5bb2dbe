"""Sparse files as GNU tar writes them: every byte is kept, and the content has its holes back."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm, Digest, OciDigest
from bootc.formats.splitstream import StreamReader
from bootc.formats.tar import EntryKind
from bootc.formats.tree import Directory, External, Inline
from bootc.formats.verity import verity_digest
from bootc.oci.flatten import apply_layer
from bootc.oci.trees import image_id_of
from bootc.oci.unpack import bodies_of, entries, split_layer
from support import require
from support.memory import Memory

pytestmark = pytest.mark.interop

SHA256 = Algorithm.SHA256
FORMATS = [
    ("--format=gnu",),
    ("--format=posix", "--sparse-version=0.0"),
    ("--format=posix", "--sparse-version=0.1"),
    ("--format=posix", "--sparse-version=1.0"),
]


@pytest.fixture(params=FORMATS, ids=" ".join)
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    """An archive of a file with more holes than one map block names, and a file after it."""
    tar = require.tool("tar")
    holes = tmp_path / "holes"
    with holes.open("wb") as file:
        for number in range(60):
            file.seek(number << 17)
            file.write(b"%04d" % number * 1024)
        file.truncate(60 << 17)
    if holes.stat().st_blocks * 512 == holes.stat().st_size:
        require.lacking("a file system with holes below the temporary directory")
    (tmp_path / "zz").write_text("after")
    command = [tar, *request.param, "--sparse", "--create", "holes", "zz"]
    return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout


def content_of_holes(path: Path) -> bytes:
    return (path / "holes").read_bytes()


def test_every_byte_is_kept_and_the_content_is_whole(archive: bytes, tmp_path: Path) -> None:
    memory = Memory()
    data = split_layer(io.BytesIO(archive), OciDigest.of(archive), memory)
    again = b"".join(
        memory.objects[chunk] if isinstance(chunk, Digest) else chunk
        for chunk in StreamReader(data).chunks()
    )
    assert again == archive
    (holes, content), (after, _) = entries(StreamReader(data), SHA256)
    assert (holes.kind, holes.path, after.path) == (EntryKind.SPARSE, b"holes", b"zz")
    wanted = content_of_holes(tmp_path)
    assert content == External(verity_digest(wanted, SHA256), len(wanted))
    assert memory.objects[content.digest] == wanted
    assert list(StreamReader(data).kept()) == [content.digest]
    ((_, body),) = bodies_of(io.BytesIO(archive), [holes])
    assert body == wanted


def test_the_tree_is_that_of_the_plain_archive(archive: bytes, tmp_path: Path) -> None:
    tar = [
        require.tool("tar"),
        "--format=posix",
        "--pax-option=delete=[ac]time",
        "-c",
        "holes",
        "zz",
    ]
    plain = subprocess.run(tar, cwd=tmp_path, check=True, capture_output=True).stdout
    trees = []
    for data in (archive, plain):
        root = Directory()
        stream = StreamReader(split_layer(io.BytesIO(data), OciDigest.of(data), Memory()))
        apply_layer(root, OciDigest.of(data), entries(stream, SHA256))
        for leaf in root.entries.values():
            # The GNU format has whole seconds.
            leaf.stat.mtime_ns = 0
        trees.append(image_id_of(root))
    assert trees[0] == trees[1]


def test_small_files_are_in_the_image(tmp_path: Path) -> None:
    tar = require.tool("tar")
    for size in (0, 1, 64, 65, 600):
        with (tmp_path / f"{size}").open("wb") as file:
            file.truncate(size)
    names = ["0", "1", "64", "65", "600"]
    for form in FORMATS:
        command = [tar, *form, "--sparse", "-c", *names]
        data = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
        stream = StreamReader(split_layer(io.BytesIO(data), OciDigest.of(data), Memory()))
        found = {entry.path.decode(): content for entry, content in entries(stream, SHA256)}
        assert found == {
            name: Inline(bytes(int(name)))
            if int(name) <= 64
            else External(verity_digest(bytes(int(name)), SHA256), int(name))
            for name in names
        }
