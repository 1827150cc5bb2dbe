"""Locks exclude each other between open directories, not between processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootc.fs.dir import Dir
from bootc.fs.lock import LockedByOther, lock_exclusive, lock_shared


def test_shared_excludes_exclusive_until_closed(tmp_path: Path) -> None:
    with Dir.open(tmp_path) as one:
        with Dir.open(tmp_path) as two:
            lock_shared(one)
            lock_shared(two)
            with pytest.raises(LockedByOther, match=str(tmp_path)) as caught:
                lock_exclusive(one)
            assert caught.value.hint is not None
        lock_exclusive(one)
        lock_shared(one)
