"""The way down a tree: few directories are open, and the way back leads where it came from."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.fs import descent as descents
from bootc.fs.descent import Descent, open_same_mount
from bootc.kernel import files
from support.deep import directory, make_deep


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def inode(fd: int) -> int:
    return os.fstat(fd).st_ino


def test_the_way_back_leads_where_it_came_from(top: int, tmp_path: Path) -> None:
    make_deep(tmp_path, 200)
    before = len(os.listdir("/proc/self/fd"))
    with Descent(top, "/top") as descent:
        seen = [inode(descent.fileno())]
        for _ in range(200):
            seen.append(inode(descent.enter("d")))
            assert len(os.listdir("/proc/self/fd")) <= before + descents._HELD + 1
        assert descent.depth == 200
        for expected in reversed(seen):
            assert inode(descent.fileno()) == expected
            if descent.depth:
                descent.leave()
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture(scope="module")
def deep_tree() -> Iterator[Path]:
    with directory() as path:
        make_deep(path, 300)
        yield path


@settings(max_examples=100, deadline=None)
@given(moves=st.lists(st.integers(-200, 200), max_size=8))
def test_any_walk_ends_where_it_should(deep_tree: Path, moves: list[int]) -> None:
    top = os.open(deep_tree, os.O_RDONLY | os.O_DIRECTORY)
    inodes = [inode(top)]
    with Descent(top, "/top") as descent:
        for move in moves:
            for _ in range(abs(move)):
                if move > 0 and descent.depth < 300:
                    fd = descent.enter("d")
                    if descent.depth == len(inodes):
                        inodes.append(inode(fd))
                elif move < 0 and descent.depth:
                    descent.leave()
                assert inode(descent.fileno()) == inodes[descent.depth]
    os.close(top)


def test_a_directory_that_was_moved_ends_the_walk(top: int, tmp_path: Path) -> None:
    make_deep(tmp_path, 100)
    (tmp_path / "elsewhere").mkdir()
    with Descent(top, "/top") as descent:
        for _ in range(100):
            descent.enter("d")
        (tmp_path / "d/d/d").rename(tmp_path / "elsewhere/d")
        while descent.depth > 3:
            descent.leave()
        with pytest.raises(OSError, match="was moved") as caught:
            descent.leave()
    assert caught.value.errno == errno.ESTALE


def test_paths_for_messages(top: int, tmp_path: Path) -> None:
    make_deep(tmp_path, 130)
    with Descent(top, "/top/") as descent:
        assert (descent.relpath(), descent.path()) == (".", "/top/")
        assert (descent.relpath("f"), descent.path("f")) == ("f", "/top/f")
        descent.enter("d")
        assert (descent.relpath(), descent.path("f")) == ("d", "/top/d/f")
        for _ in range(129):
            descent.enter("d")
        assert descent.relpath("f") == ".../" + "d/" * 128 + "f"


def test_a_bound_is_an_error_that_names_the_place(top: int, tmp_path: Path) -> None:
    make_deep(tmp_path, 3)
    with Descent(top, "/top", max_depth=3) as descent:
        descent.enter("d")
        descent.enter("d")
        with pytest.raises(OSError, match="nested deeper than 3") as caught:
            descent.enter("d")
    assert caught.value.filename == "/top/d/d/d"


@pytest.mark.parametrize("cross_mounts", [True, False])
def test_what_cannot_be_entered(top: int, tmp_path: Path, cross_mounts: bool) -> None:
    (tmp_path / "f").write_text("")
    (tmp_path / "link").symlink_to(".")
    with Descent(top, "/top", cross_mounts=cross_mounts) as descent:
        for name in ("f", "link", "nothing"):
            with pytest.raises(OSError, match="directory") as caught:
                descent.enter(name)
            assert caught.value.filename == f"/top/{name}"
        assert descent.depth == 0


def test_without_openat2_mounts_are_told_by_their_numbers(
    top: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*args: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(files, "openat2", missing)
    (tmp_path / "d").mkdir()
    fd = open_same_mount(top, "d", "/top/d")
    assert inode(fd) == (tmp_path / "d").stat().st_ino
    os.close(fd)
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    with pytest.raises(descents.MountPoint) as caught:
        open_same_mount(root, "proc", "/proc")
    os.close(root)
    assert caught.value.filename == "/proc"
