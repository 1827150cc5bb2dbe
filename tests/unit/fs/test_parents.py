"""Directories for a result: all of them are there afterwards, or none that was not before."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.fs.parents import directories_made


def fail(path: Path, below: str = "", *content: str) -> None:
    def work() -> None:
        if below:
            (path / below).mkdir()
        for name in content:
            (path / name).touch()
        raise KeyError

    with pytest.raises(KeyError), directories_made(str(path), below):
        work()


def test_success_keeps_them(tmp_path: Path) -> None:
    with directories_made(str(tmp_path / "a/b")):
        pass
    assert (tmp_path / "a/b").is_dir()


def test_failure_removes_them(tmp_path: Path) -> None:
    fail(tmp_path / "a/b/c")
    fail(tmp_path / "a/b", "c")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    fail(tmp_path / "a")
    fail(tmp_path / "a", "b")
    assert list(tmp_path.rglob("*")) == [tmp_path / "a"]


def test_what_holds_something_stays(tmp_path: Path) -> None:
    fail(tmp_path / "a/b", "", "file")
    assert (tmp_path / "a/b/file").exists()


def test_the_name_below_need_not_be_made(tmp_path: Path) -> None:
    with pytest.raises(KeyError), directories_made(str(tmp_path / "a"), "b"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
