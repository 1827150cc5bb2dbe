"""The previous system of a machine, removed at the first boot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.deploy.old_root import MARK, mark_old_root, remove_old_root
from bootc.fs.dir import Dir
from support.bench import Bench
from support.machine import Command

REMOVED = ("usr/bin/sh", "lib64/ld.so", "var/lib/containers/storage/x", "var/cache/apt/x")
KEPT = ("etc/passwd", "home/user/x", "root/x", "srv/x", "opt/x", "var/lib/mysql/x", "state/x")
REMOVE: Command = remove_old_root


@pytest.fixture
def old(bench: Bench) -> Path:
    """Put the files of a previous system into the physical root."""
    root = bench.machine.physical
    for path in (*REMOVED, *KEPT):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    (root / "bin").symlink_to("usr/bin")
    return root


def test_only_the_programs_are_removed(bench: Bench, old: Path) -> None:
    with Dir.open(old) as root:
        mark_old_root(root)
    said = bench.machine.command(REMOVE)
    assert said == [
        "Removed of the previous system: bin, lib64, usr, var/lib/containers, var/cache"
    ]
    assert not any((old / path).exists() for path in REMOVED)
    assert not (old / "bin").is_symlink()
    assert all((old / path).exists() for path in KEPT)
    assert not (old / MARK).exists()
    assert bench.shown() == ["new", "old"]
    assert bench.machine.command(REMOVE) == []


def test_without_the_mark_nothing_is_removed(bench: Bench, old: Path) -> None:
    assert bench.machine.command(REMOVE) == []
    assert all((old / path).exists() for path in (*REMOVED, *KEPT))


def test_a_failure_keeps_the_mark_and_removes_the_rest(
    bench: Bench, old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Dir.open(old) as root:
        mark_old_root(root)
    remove_tree = Dir.remove_tree

    def remove(self: Dir, path: str) -> None:
        if path == "usr":
            raise PermissionError(1, os.strerror(1), path)
        remove_tree(self, path)

    monkeypatch.setattr(Dir, "remove_tree", remove)
    with pytest.raises(PermissionError):
        bench.machine.command(REMOVE)
    assert (old / MARK).exists()
    assert not (old / "var/cache").exists()
    monkeypatch.undo()
    bench.machine.command(REMOVE)
    assert not (old / "usr").exists()
    assert not (old / MARK).exists()
