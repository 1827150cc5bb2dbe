"""What GNU tar unpacks of an exported root is that root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bootc.cli.main import main
from bootc.formats.digest import Algorithm
from bootc.formats.tree import Directory
from bootc.fs.dir import Dir
from bootc.fs.tree_read import read_tree
from bootc.repository.sink import DigestOnly
from support import require
from support.roots import Root
from support.trees import text_of

pytestmark = pytest.mark.interop

CAPABILITY = b"\x01\x00\x00\x02\x00\x20" + bytes(14)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    require.root()
    root = Root(tmp_path / "root").directory("usr/empty")
    root.file("usr/bin/su", b"su" * 3000).file("usr/bin/ping", b"p" * 70).file("usr/zero")
    root.file(f"usr/{'long' * 40}", "x").file(f"usr/{os.fsdecode(bytes([0xFF, 10, 0xE9]))}", "y")
    root.link("usr/link", "../no/" + "where" * 40)
    os.link(root.path / "usr/bin/su", root.path / "usr/bin/su2")
    os.mknod(root.path / "usr/null", 0o20666, os.makedev(1, 3))
    os.mknod(root.path / "usr/disk", 0o60660, os.makedev(259, 300))
    os.mkfifo(root.path / "usr/pipe")
    os.chown(root.path / "usr/bin/su", 70000, 3_000_000_000)
    (root.path / "usr/bin/su").chmod(0o4755)
    os.setxattr(root.path / "usr/bin/ping", "security.capability", CAPABILITY)
    os.setxattr(root.path / "usr/bin/ping", "user.note", b"\xff\n=")
    os.setxattr(root.path / "usr/empty", "user.of a directory", b"1")
    for number, path in enumerate([*root.path.rglob("*"), root.path]):
        os.utime(
            path, ns=(0, 1_600_000_000_000_000_000 + number * 1_000_000_007), follow_symlinks=False
        )
    return root


def tree(path: Path) -> Directory:
    with Dir.open(path) as top:
        return read_tree(top, DigestOnly(Algorithm.SHA256))


def test_unpacked_by_gnu_tar(root: Root, tmp_path: Path) -> None:
    archive, unpacked = tmp_path / "root.tar", tmp_path / "unpacked"
    unpacked.mkdir()
    assert main(["container", "export", "-o", str(archive), str(root.path)]) == 0
    tar = [require.tool("tar"), "--xattrs", "--xattrs-include=*", "--numeric-owner", "-p", "-x"]
    done = subprocess.run([*tar, "-C", unpacked, "-f", archive], check=True, capture_output=True)
    assert done.stderr == b""
    expected, got = tree(root.path), tree(unpacked)
    got.stat = expected.stat  # the root has no entry
    assert text_of(got) == text_of(expected)
    again = tmp_path / "again.tar"
    assert main(["container", "export", "-o", str(again), str(unpacked)]) == 0
    assert again.read_bytes() == archive.read_bytes()
