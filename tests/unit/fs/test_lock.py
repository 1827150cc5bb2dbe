"""Locks exclude each other between open directories, not between processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.fs.dir import Dir
from bootc.fs.lock import LockedHere, lock_exclusive, lock_shared


def test_shared_excludes_exclusive_until_closed(tmp_path: Path) -> None:
    with Dir.open(tmp_path) as one:
        with Dir.open(tmp_path) as two:
            lock_shared(one)
            lock_shared(two)
            with pytest.raises(LockedHere, match=str(tmp_path)) as caught:
                lock_exclusive(one)
            assert caught.value.hint is not None
        lock_exclusive(one)
        lock_shared(one)


def test_exclusive_excludes_shared(tmp_path: Path) -> None:
    with Dir.open(tmp_path) as one, Dir.open(tmp_path) as two:
        lock_exclusive(one)
        for wait in (False, True):
            with pytest.raises(LockedHere):
                lock_shared(two, wait=wait)
        lock_shared(one)
        lock_shared(two)


def test_an_open_handle_without_a_lock_is_no_hindrance(tmp_path: Path) -> None:
    with Dir.open(tmp_path), Dir.open(tmp_path) as two:
        lock_exclusive(two, wait=True)
