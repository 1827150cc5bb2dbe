"""A Hypothesis strategy for trees that a directory of this machine can hold, and their law."""

from __future__ import annotations

import os
import shutil
import tempfile

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
from bootc.fs.tree_read import read_tree
from bootc.fs.tree_write import write_tree
from bootc.repository.sink import DigestOnly
from support.trees import text_of

_ALGORITHM = Algorithm.SHA512
_LARGE = [b"large" * 20, bytes(5000)]
_CONTENTS = {verity_digest(data, _ALGORITHM): data for data in _LARGE}
#: cap_net_raw+ep, version 2.
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
_NAMES = st.binary(min_size=1, max_size=3).filter(
    lambda name: name not in (b".", b"..") and not set(name) & set(b"/\0")
)
_FILES = [Inline(b""), Inline(b"x" * 64)] + [
    External(digest, len(data)) for digest, data in _CONTENTS.items()
]
_OTHERS: list[Content] = [Symlink(b"t\xff"), Fifo(), Socket()]


@st.composite
def _stats(draw: st.DrawFn, content: Content | None, *, root: bool) -> Stat:
    mode = 0o777 if isinstance(content, Symlink) else draw(st.integers(0, 0o7777))
    if not root:
        mode |= 0o700 if content is None else 0o600  # they bind its owner, too
    attributes: dict[bytes, bytes] = {}
    if content is None or content in _FILES:
        values = st.sampled_from([b"", b"v" * 129])
        attributes = draw(st.dictionaries(st.sampled_from([b"user.a", b"user.b"]), values))
    if root and content in _FILES and draw(st.booleans()):
        attributes[b"security.capability"] = CAPABILITY
    owners = st.sampled_from([0, 1, 65536])
    uid, gid = (draw(owners), draw(owners)) if root else (os.getuid(), os.getgid())
    times = st.sampled_from([0, 1_700_000_000])
    nanoseconds = st.sampled_from([0, 999_999_999])
    return Stat(mode, uid, gid, draw(times), draw(nanoseconds), dict(attributes))


@st.composite
def trees(draw: st.DrawFn, *, root: bool) -> Directory:
    """A tree that can be written and read back.

    Args:
        draw: Hypothesis gives it.
        root: With owners, devices and capabilities that only root can make.
    """
    others = [*_OTHERS, CharDevice(259)] if root else _OTHERS
    top = Directory(draw(_stats(None, root=root)))
    directories, leaves = [top], []
    for _ in range(draw(st.integers(0, 10))):
        parent, name = draw(st.sampled_from(directories)), draw(_NAMES)
        kind = draw(st.sampled_from(["directory", "file", "other", "link"]))
        if kind == "directory":
            parent.entries[name] = below = Directory(draw(_stats(None, root=root)))
            directories = [d for _, d in top.walk() if isinstance(d, Directory)]
            assert below in directories
        elif kind == "link" and leaves:
            parent.entries[name] = draw(st.sampled_from(leaves))
        else:
            content = draw(st.sampled_from(_FILES if kind == "file" else others))
            parent.entries[name] = leaf = Leaf(draw(_stats(content, root=root)), content)
            leaves.append(leaf)
            directories = [d for _, d in top.walk() if isinstance(d, Directory)]
    return top


def check_written_and_read_again(tree: Directory) -> None:
    """What is written into a directory must be what is read from it."""
    before = text_of(tree)

    def open_content(content: External) -> int:
        fd = os.memfd_create("content")
        os.write(fd, _CONTENTS[content.digest])
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    path = tempfile.mkdtemp()
    try:
        with Dir.open(path) as target:
            write_tree(tree, target, open_content)
            again = read_tree(target, DigestOnly(_ALGORITHM))
    finally:
        shutil.rmtree(path)
    assert text_of(again) == before
    assert text_of(tree) == before, "writing changed the tree"
