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


def test_directories_are_merged(tmp_path: Path, bootc) -> None:
    pristine, current, new = (tmp_path / name for name in ("pristine", "current", "new"))
    for path in (pristine, current, new):
        path.mkdir()
        (path / "same").write_text("same" * 100)
        (path / "gone").write_text("gone")
        (path / "changed").write_text("default")
    (current / "gone").unlink()
    (current / "changed").write_text("local" * 100)
    (current / "sub").mkdir(mode=0o750)
    (current / "sub/mine").write_text("mine")
    (new / "same").write_text("newer" * 100)
    (new / "more").write_text("more")
    paths = (pristine, current, new)
    code, printed, _ = bootc("internals", "dir-diff", *paths)
    assert code == 0
    assert (new / "changed").read_text() == "default"
    assert bootc("internals", "dir-diff", "--merge", *paths) == (0, printed, "")
    assert {path.name for path in new.iterdir()} == {"same", "changed", "sub", "more"}
    assert (new / "changed").read_text() == "local" * 100
    assert (new / "same").read_text() == "newer" * 100
    assert (new / "sub/mine").read_text() == "mine"
    assert (new / "sub").stat().st_mode & 0o777 == 0o750
    assert {path.name for path in tmp_path.iterdir()} == {"pristine", "current", "new"}


def test_a_conflict_changes_nothing(directories, bootc) -> None:
    new = Path(directories[2])
    before = new.stat().st_ino
    code, printed, err = bootc("internals", "dir-diff", "--merge", *directories)
    assert code == 1
    assert "Unmergable File 'both'" in printed
    assert err.startswith(f"error: {new} is unchanged, because there are conflicts (hint: ")
    assert new.stat().st_ino == before
    assert [path.name for path in new.iterdir()] == ["both"]
