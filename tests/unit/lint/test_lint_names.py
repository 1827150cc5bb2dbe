from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.fs.dir import Dir
from bootc.fs.visit import visit
from bootc.lint.names import utf8


def found(top: Path) -> list[object]:
    with Dir.open(top) as directory:
        return [finding for finding in map(utf8, visit(directory)) if finding is not None]


def test_any_text_passes(tmp_path: Path) -> None:
    (tmp_path / "é\n\u202e😀").mkdir()
    (tmp_path / "link").symlink_to("é")
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (b"a\xff", '/: Found non-utf8 filename "a\\xFF"'),
        (b'usr/share/x"\xe9', '/usr/share: Found non-utf8 filename "x\\"\\xE9"'),
        (b"my dir/\xc3(", "'/my dir': Found non-utf8 filename \"\\xC3(\""),
    ],
)
def test_a_name(tmp_path: Path, path: bytes, text: str) -> None:
    target = tmp_path / os.fsdecode(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.touch()
    assert found(tmp_path) == [text]


def test_what_a_link_says(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    (tmp_path / "a b/link").symlink_to(os.fsdecode(b"\xff"))
    assert found(tmp_path) == ["'/a b/link': Found non-utf8 symlink target"]
