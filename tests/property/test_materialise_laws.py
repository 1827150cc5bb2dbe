"""What is written into a directory is what is read from it."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.formats.digest import Algorithm
from bootc.formats.tree import (
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Socket,
    Stat,
    Symlink,
)
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.fs.materialise import write_tree
from bootc.fs.walk import read_tree
from bootc.repository.sink import DigestOnly
from support import require
from support.trees import text_of

ALGORITHM = Algorithm.SHA512
LARGE = [b"large" * 20, bytes(5000)]
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
NAMES = st.binary(min_size=1, max_size=3).filter(
    lambda name: name not in (b".", b"..") and not set(name) & set(b"/\0")
)
FILES = [Inline(b""), Inline(b"x" * 64)] + [
    External(verity_digest(data, ALGORITHM), len(data)) for data in LARGE
]
OTHERS: list[Content] = [Symlink(b"t\xff"), CharDevice(259), Fifo(), Socket()]


@st.composite
def stats(draw: st.DrawFn, content: Content | None) -> Stat:
    mode = 0o777 if isinstance(content, Symlink) else draw(st.integers(0, 0o7777))
    attributes: dict[bytes, bytes] = {}
    if content is None or content in FILES:
        values = st.sampled_from([b"", b"v" * 129])
        attributes = draw(st.dictionaries(st.sampled_from([b"user.a", b"user.b"]), values))
    if content in FILES and draw(st.booleans()):
        attributes[b"security.capability"] = CAPABILITY
    owners = st.sampled_from([0, 1, 65536])
    times = st.sampled_from([0, 1_700_000_000])
    nanoseconds = st.sampled_from([0, 999_999_999])
    return Stat(mode, draw(owners), draw(owners), draw(times), draw(nanoseconds), dict(attributes))


@st.composite
def trees(draw: st.DrawFn) -> Directory:
    top = Directory(draw(stats(None)))
    directories, leaves = [top], []
    for _ in range(draw(st.integers(0, 10))):
        parent, name = draw(st.sampled_from(directories)), draw(NAMES)
        kind = draw(st.sampled_from(["directory", "file", "other", "link"]))
        if kind == "directory":
            parent.entries[name] = below = Directory(draw(stats(None)))
            directories = [d for _, d in top.walk() if isinstance(d, Directory)]
            assert below in directories
        elif kind == "link" and leaves:
            parent.entries[name] = draw(st.sampled_from(leaves))
        else:
            content = draw(st.sampled_from(FILES if kind == "file" else OTHERS))
            parent.entries[name] = leaf = Leaf(draw(stats(content)), content)
            leaves.append(leaf)
            directories = [d for _, d in top.walk() if isinstance(d, Directory)]
    return top


@pytest.fixture(scope="module")
def base() -> Path:
    require.root()
    return Path(tempfile.gettempdir())


@settings(deadline=None, max_examples=60)
@given(tree=trees())
def test_written_and_read_again(base: Path, tree: Directory) -> None:
    before = text_of(tree)
    contents = {verity_digest(data, ALGORITHM): data for data in LARGE}

    def open_content(content: External) -> int:
        fd = os.memfd_create("content")
        os.write(fd, contents[content.digest])
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    path = tempfile.mkdtemp(dir=base)
    try:
        with Dir.open(path) as target:
            write_tree(tree, target, open_content)
            again = read_tree(target, DigestOnly(ALGORITHM))
    finally:
        shutil.rmtree(path)
    assert text_of(again) == before
    assert text_of(tree) == before, "writing changed the tree"
