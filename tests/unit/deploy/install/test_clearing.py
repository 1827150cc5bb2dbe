from __future__ import annotations

from pathlib import Path

import pytest

from bootc.deploy.install.clearing import UNFINISHED, UndoneUnlessKept, leftovers, remove
from bootc.events import Event, Message
from bootc.fs.dir import Dir


def fail_in(root: Dir, events: list[Event], *, keep: bool) -> None:
    with UndoneUnlessKept(root, events.append) as undone:
        for name in ("composefs", "state", "boot"):
            root.ensure_dir(f"{name}/below").close()
        if keep:
            undone.keep()
        raise KeyboardInterrupt


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "boot").mkdir()
    (tmp_path / "boot/old").touch()
    (tmp_path / "mine").touch()
    return tmp_path


def test_a_failure_removes_what_was_created(root: Path) -> None:
    events: list[Event] = []
    with Dir.open(root) as directory, pytest.raises(KeyboardInterrupt):
        fail_in(directory, events, keep=False)
    assert sorted(path.name for path in root.iterdir()) == ["boot", "mine"]
    assert (root / "boot/old").exists()
    assert events == [Message(f"Removed the unfinished installation from {root}")]


def test_a_failure_after_the_boot_entry_removes_nothing(root: Path) -> None:
    events: list[Event] = []
    with Dir.open(root) as directory, pytest.raises(KeyboardInterrupt):
        fail_in(directory, events, keep=True)
    assert sorted(path.name for path in root.iterdir()) == ["boot", "composefs", "mine", "state"]
    assert events == []


def test_the_leftovers_of_a_killed_installation_are_known(root: Path) -> None:
    with Dir.open(root) as directory:
        assert leftovers(directory) == []
        UndoneUnlessKept(directory, lambda _: None).__enter__()
        (root / "state").mkdir()
        found = leftovers(directory)
        assert "boot" not in found
        assert {"composefs", "state", UNFINISHED} <= set(found)
        remove(directory, found)
    assert sorted(path.name for path in root.iterdir()) == ["boot", "mine"]


@pytest.mark.parametrize("text", ["", "mine\n../boot\n/\n", "\0" * 99])
def test_only_names_of_an_installation_are_leftovers(root: Path, text: str) -> None:
    (root / UNFINISHED).write_text(text)
    with Dir.open(root) as directory:
        assert leftovers(directory) == [UNFINISHED]
