from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.fs.imageroot import ImageRoot
from bootc.lint.dropins import drop_ins
from support.roots import Root


def read(root: Root, *homes: str) -> list[bytes]:
    with ImageRoot.open(os.fspath(root.path)) as image:
        return list(drop_ins(image, homes))


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def test_by_name_whatever_the_directory(root: Root) -> None:
    root.file("usr/b.conf", "1").file("usr/d.conf", "2").file("etc/a.conf", "3")
    root.file("etc/c.conf", "4").file("etc/e", "5").file("usr/e.conf~", "6")
    assert read(root, "usr", "etc", "run") == [b"3", b"1", b"4", b"2"]


def test_the_later_directory_wins(root: Root) -> None:
    root.file("usr/a.conf", "1").file("etc/a.conf", "2")
    assert read(root, "usr", "etc") == [b"2"]
    root.remove("etc/a.conf").link("etc/a.conf", "/dev/null")
    assert read(root, "usr", "etc") == []
    root.directory("dev")
    os.mkfifo(root.path / "dev/null")
    assert read(root, "usr", "etc") == []


def test_a_file_without_end_is_refused(root: Root) -> None:
    root.file("usr/a.conf")
    os.truncate(root.path / "usr/a.conf", 1 << 40)
    with pytest.raises(OSError, match="larger than"):
        read(root, "usr")
