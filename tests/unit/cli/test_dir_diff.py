"""``bootc internals dir-diff``, which merges three directories like versions of ``/etc``."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.cli import main as cli


@pytest.fixture
def directories(tmp_path: Path) -> list[str]:
    pristine, current, new = (tmp_path / name for name in ("pristine", "current", "new"))
    for path in (pristine, current, new):
        path.mkdir()
    (pristine / "both").write_text("a")
    (current / "both").write_text("b")
    (current / "mine").write_text("x")
    (new / "both").mkdir()
    return [str(path) for path in (pristine, current, new)]


def test_three_directories(directories, capsys) -> None:
    assert cli.main(["internals", "dir-diff", *directories]) == 0
    assert capsys.readouterr().out == (
        'Added "mine"\n'
        'Modified "both"\n'
        "Unmergable File 'both' now defaults to a directory in new etc\n"
    )


def test_a_directory_that_is_not_there(directories, capsys) -> None:
    assert cli.main(["internals", "dir-diff", *directories[:2], "/nonexistent"]) == 1
    err = capsys.readouterr().err
    assert err == "error: Reading /nonexistent: /nonexistent: No such file or directory\n"
