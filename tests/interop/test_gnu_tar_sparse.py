"""Sparse files as GNU tar writes them: every byte is kept, and no tree is made of them."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest

from bootc.formats.digest import Algorithm, Digest, OciDigest
from bootc.formats.splitstream import StreamReader
from bootc.formats.tar import EntryKind
from bootc.formats.tree import Directory
from bootc.oci.flatten import FlattenError, apply_layer
from bootc.oci.unpack import entries, split_layer
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


def test_every_byte_is_kept(archive: bytes) -> None:
    memory = Memory()
    stream = StreamReader(split_layer(io.BytesIO(archive), OciDigest.of(archive), memory))
    again = b"".join(
        memory.objects[chunk] if isinstance(chunk, Digest) else chunk for chunk in stream.chunks()
    )
    assert again == archive
    # The packed content is an object and not inline bytes: memory stays constant.
    assert max(map(len, memory.objects.values())) >= 60 * 4096


def test_what_follows_is_found_and_no_tree_is_made(archive: bytes) -> None:
    data = split_layer(io.BytesIO(archive), OciDigest.of(archive), Memory())
    found = [(entry.kind, entry.path) for entry, _ in entries(StreamReader(data), SHA256)]
    assert [kind for kind, _ in found] == [EntryKind.SPARSE, EntryKind.FILE]
    assert found[1][1] == b"zz"
    with pytest.raises(FlattenError, match="a sparse file"):
        apply_layer(Directory(), OciDigest.of(archive), entries(StreamReader(data), SHA256))
