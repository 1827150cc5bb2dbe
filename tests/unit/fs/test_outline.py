from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.formats.tree import Directory, External, Fifo, Leaf, Node, Symlink
from bootc.fs.imageroot import ImageRoot
from bootc.fs.outline import Outline
from bootc.fs.tree_read import TreeChanged


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "usr/lib/deep/er").mkdir(parents=True)
    (tmp_path / "usr/lib/a").write_bytes(b"content of a")
    (tmp_path / "usr/lib/deep/er/b").write_bytes(b"")
    (tmp_path / "usr/lib/link").symlink_to("a")
    (tmp_path / "usr/other").write_bytes(b"x")
    (tmp_path / "lib").symlink_to("usr/lib")
    os.mkfifo(tmp_path / "usr/lib/pipe")
    return tmp_path


@pytest.fixture
def image(top: Path) -> Iterator[ImageRoot]:
    with ImageRoot.open(os.fspath(top)) as opened:
        yield opened


def leaf(node: Node | None) -> Leaf:
    assert isinstance(node, Leaf)
    return node


def paths(outline: Outline) -> list[bytes]:
    return [path for path, _ in outline.root.walk()]


def test_what_was_asked_for(image: ImageRoot) -> None:
    outline = Outline.read(image, ["usr/lib", "boot", "usr/share/x"])
    assert paths(outline) == [
        b"/",
        b"/usr",
        b"/usr/lib",
        b"/usr/lib/a",
        b"/usr/lib/deep",
        b"/usr/lib/deep/er",
        b"/usr/lib/deep/er/b",
        b"/usr/lib/link",
        b"/usr/lib/pipe",
    ]


def test_content(image: ImageRoot) -> None:
    outline = Outline.read(image, ["usr/lib"])
    content = leaf(outline.root.lookup("usr/lib/a")).content
    assert isinstance(content, External)
    assert content.size_bytes == 12
    assert outline.read_content(content) == b"content of a"
    empty = leaf(outline.root.lookup("usr/lib/deep/er/b")).content
    assert isinstance(empty, External)
    assert outline.read_content(empty) == b""
    with open(outline.open(content.digest), "rb") as file:
        assert file.read() == b"content of a"


def test_a_file_that_changes(image: ImageRoot, top: Path) -> None:
    outline = Outline.read(image, ["usr/lib"])
    content = leaf(outline.root.lookup("usr/lib/a")).content
    assert isinstance(content, External)
    (top / "usr/lib/a").write_bytes(b"longer than before")
    with pytest.raises(TreeChanged, match="usr/lib/a changed"):
        outline.read_content(content)
    (top / "usr/lib/a").unlink()
    with pytest.raises(TreeChanged, match="usr/lib/a changed"):
        outline.read_content(content)


def test_links_are_not_followed(image: ImageRoot) -> None:
    outline = Outline.read(image, ["lib/deep", "usr/lib/link"])
    assert leaf(outline.root.lookup("lib")).content == Symlink(b"usr/lib")
    assert leaf(outline.root.lookup("usr/lib/link")).content == Symlink(b"a")
    assert paths(outline) == [b"/", b"/lib", b"/usr", b"/usr/lib", b"/usr/lib/link"]


def test_a_file_in_the_place_of_a_directory(image: ImageRoot) -> None:
    outline = Outline.read(image, ["usr/lib/a/b"])
    assert isinstance(leaf(outline.root.lookup("usr/lib/a")).content, External)


def test_the_same_twice(image: ImageRoot) -> None:
    outline = Outline.read(image, ["usr/lib/deep", "usr/lib", "usr/lib"])
    assert paths(outline) == paths(Outline.read(image, ["usr/lib"]))
    assert isinstance(outline.root.lookup("usr/lib/deep/er"), Directory)


def test_nobody_needs_to_read_the_files(image: ImageRoot, top: Path) -> None:
    (top / "usr/lib/a").chmod(0)
    assert isinstance(leaf(Outline.read(image, ["usr/lib"]).root.lookup("usr/lib/a")), Leaf)


_MOUNTED = """
import sys
from bootc.fs.imageroot import ImageRoot
from bootc.fs.mounts import private_mount_namespace
from bootc.fs.outline import Outline
from bootc.kernel.mount import MS_BIND, mount
private_mount_namespace()
top = sys.argv[1]
mount(f"{top}/elsewhere", f"{top}/root/bound", None, MS_BIND)
mount(f"{top}/elsewhere/file", f"{top}/root/etc/file", None, MS_BIND)
with ImageRoot.open(f"{top}/root") as image:
    for paths in ((".",), ("bound/below", "etc")):
        print(*(path.decode() for path, _ in Outline.read(image, paths).root.walk()))
"""


@pytest.mark.root
def test_mounts_are_not_the_images(tmp_path: Path) -> None:
    for path in ("elsewhere/below", "root/bound", "root/etc"):
        (tmp_path / path).mkdir(parents=True)
    for path in ("elsewhere/file", "root/etc/file", "root/etc/own"):
        (tmp_path / path).touch()
    command = [sys.executable, "-c", _MOUNTED, tmp_path]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    assert done.stdout.splitlines() == ["/ /bound /etc /etc/own", "/ /bound /etc /etc/own"]


def test_metadata(image: ImageRoot, top: Path) -> None:
    os.link(top / "usr/lib/a", top / "usr/hard")
    os.setxattr(top / "usr/lib/a", "user.note", b"1")
    (top / "usr/lib").chmod(0o711)
    os.utime(top / "usr/lib", ns=(0, 7_000_000_009))
    tree = Outline.read(image, xattrs=True).root
    assert tree.lookup("usr/hard") is tree.lookup("usr/lib/a")
    assert leaf(tree.lookup("usr/hard")).stat.xattrs == {b"user.note": b"1"}
    directory = tree.lookup("usr/lib")
    assert isinstance(directory, Directory)
    assert (directory.stat.mode, directory.stat.mtime_s, directory.stat.mtime_ns) == (0o711, 7, 9)
    assert tree.stat.mode == os.stat(top).st_mode & 0o7777
    assert leaf(tree.lookup("usr/lib/pipe")).content == Fifo()
    assert leaf(Outline.read(image).root.lookup("usr/hard")).stat.xattrs == {}
