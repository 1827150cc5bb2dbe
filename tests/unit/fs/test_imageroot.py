"""Links of an image lead inside the image, as they will when it is the root."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.fs.imageroot import ImageRoot


@pytest.fixture
def root(tmp_path: Path) -> Iterator[ImageRoot]:
    (tmp_path / "outside").write_bytes(b"of the host")
    top = tmp_path / "root"
    (top / "usr/lib").mkdir(parents=True)
    (top / "usr/lib/os-release").write_bytes(b"ID=x\n")
    (top / "etc").symlink_to("/usr/lib")
    (top / "relative").symlink_to("usr/lib")
    (top / "up").symlink_to("../../../../outside")
    (top / "loop").symlink_to("loop")
    (top / "file").write_bytes(b"1234")
    with ImageRoot.open(str(top)) as opened:
        yield opened


@pytest.mark.parametrize("path", ["usr/lib/os-release", "etc/os-release", "relative/os-release"])
def test_links_are_followed_inside(root: ImageRoot, path: str) -> None:
    assert root.read(path, 100) == b"ID=x\n"
    info = root.stat(path)
    assert info is not None
    assert info.st_size == 5


@pytest.mark.parametrize("path", ["nothing", "usr/nothing", "file/below", "up", "up/x"])
def test_what_is_not_there(root: ImageRoot, path: str) -> None:
    assert root.read(path, 100) is None
    if path != "up":
        assert root.stat(path) is None
        assert root.readlink(path) is None


def test_the_last_link_is_seen_as_a_link(root: ImageRoot) -> None:
    assert root.readlink("etc") == "/usr/lib"
    info = root.stat("etc")
    assert info is not None
    assert os.path.stat.S_ISLNK(info.st_mode)  # type: ignore[attr-defined]


def test_directories(root: ImageRoot) -> None:
    found = root.open_dir("etc")
    assert found is not None
    with found:
        assert found.names() == ["os-release"]
    assert root.open_dir("usr/share") is None
    with pytest.raises(NotADirectoryError, match="/root/file'"):
        root.open_dir("file")


@pytest.mark.parametrize(
    ("path", "number"),
    [("loop", errno.ELOOP), ("usr", errno.EISDIR), ("file", errno.EFBIG)],
)
def test_what_cannot_be_read(root: ImageRoot, path: str, number: int) -> None:
    with pytest.raises(OSError, match=f"/root/{path}'") as caught:
        root.read(path, 3)
    assert caught.value.errno == number


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_only_regular_files_are_opened(root: ImageRoot, kind: int) -> None:
    # Opening a FIFO would wait for a writer, and opening a socket gives another error.
    os.mknod("special", kind | 0o600, dir_fd=root.dir.fileno())
    with pytest.raises(OSError, match=r"not a regular file: .*/root/special"):
        root.open_regular("special")


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("usr/lib", "usr/lib"),
        ("etc", "usr/lib"),
        ("/etc/./os-release", "usr/lib/os-release"),
        ("etc/nothing/more", "usr/lib/nothing/more"),
        ("up", "outside"),
        ("file/x", "file/x"),
        ("loop/x", None),
    ],
)
def test_where_a_path_leads(root: ImageRoot, path: str, target: str | None) -> None:
    assert root.resolve(path) == target


@pytest.mark.parametrize("path", ["/etc", "usr/../etc"])
def test_paths_that_are_none_of_a_root(root: ImageRoot, path: str) -> None:
    with pytest.raises(ValueError, match="not one below a root"):
        root.stat(path + "/x")


def test_the_running_root(root: ImageRoot) -> None:
    assert not root.is_running
    with ImageRoot.open("/usr/..") as running:
        assert running.is_running
