"""A walk sees every name once, in order, and stays where it began."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bootc.fs.dir import Dir
from bootc.fs.visit import files_below, visit


def seen(top: Path) -> list[str]:
    with Dir.open(top) as directory:
        return [visited.path for visited in visit(directory)]


def test_the_order(tmp_path: Path) -> None:
    (tmp_path / "b/x").mkdir(parents=True)
    (tmp_path / "b/x/1").touch()
    (tmp_path / "b-").touch()
    (tmp_path / "a").symlink_to("b")
    (tmp_path / os.fsdecode(b"\xff")).touch()
    assert seen(tmp_path) == ["a", "b", "b/x", "b/x/1", "b-", os.fsdecode(b"\xff")]


def test_what_is_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "c/d").mkdir(parents=True)
    with Dir.open(tmp_path) as directory:
        assert [v.path for v in visit(directory, lambda path: path != "a")] == ["a", "c", "c/d"]


def test_descriptors_are_closed_when_the_caller_leaves(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    before = os.listdir("/proc/self/fd")
    with Dir.open(tmp_path) as directory:
        walk = visit(directory)
        assert [next(walk).path for _ in range(3)] == ["a", "a/b", "a/b/c"]
        walk.close()  # type: ignore[attr-defined]
    assert os.listdir("/proc/self/fd") == before


def test_a_directory_that_cannot_be_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    with Dir.open(tmp_path) as directory:
        walk = visit(directory)
        next(walk)
        (tmp_path / "a").rmdir()
        (tmp_path / "a").touch()
        with pytest.raises(NotADirectoryError, match="/a'"):
            next(walk)


def test_a_directory_that_goes_away_is_passed_by(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with Dir.open(tmp_path) as directory:
        walk = visit(directory)
        next(walk)
        (tmp_path / "a").rmdir()
        assert next(walk).path == "b"


def test_the_files_at_or_below_a_path(tmp_path: Path) -> None:
    deep = Path(*["d"] * 200)
    (tmp_path / "a" / deep).mkdir(parents=True)
    (tmp_path / "a" / deep / "file").write_bytes(b"12345")
    (tmp_path / "a/other").write_bytes(b"1")
    (tmp_path / "a/link").symlink_to("/etc/passwd")
    with Dir.open(tmp_path) as directory:
        sizes = sorted(info.st_size for info in files_below(directory, "a"))
        assert sizes == [1, 5, len("/etc/passwd")]
        assert [info.st_size for info in files_below(directory, "a/other")] == [1]
        assert list(files_below(directory, "missing")) == []


_MOUNTED = """
import sys
from bootc.fs.dir import Dir
from bootc.fs.mounts import private_mount_namespace
from bootc.fs.visit import files_below, is_mount_point, visit
from bootc.kernel.mount import MS_BIND, mount
private_mount_namespace()
top = sys.argv[1]
mount(f"{top}/elsewhere", f"{top}/bound", None, MS_BIND)
mount(f"{top}/elsewhere/file", f"{top}/dir/file", None, MS_BIND)
with Dir.open(top) as directory:
    for visited in visit(directory):
        print(visited.path, is_mount_point(visited))
    print(*sorted(info.st_size for info in files_below(directory, ".")))
"""


@pytest.mark.root
def test_mounts_are_seen_and_not_entered(tmp_path: Path) -> None:
    for name in ("elsewhere", "bound", "dir"):
        (tmp_path / name).mkdir()
    (tmp_path / "elsewhere/file").write_text("x")
    (tmp_path / "dir/file").touch()
    (tmp_path / "dir/link").symlink_to("file")
    done = subprocess.run(
        [sys.executable, "-c", _MOUNTED, tmp_path], check=True, text=True, stdout=subprocess.PIPE
    )
    assert done.stdout.splitlines() == [
        "bound True",
        "dir False",
        "dir/file True",
        "dir/link False",
        "elsewhere False",
        "elsewhere/file False",
        "1 1 4",
    ]
