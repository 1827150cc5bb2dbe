"""The open descriptors of this process."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def none_left_open() -> Iterator[None]:
    """Expect that all descriptors that the block opens are closed at its end.

    Earlier tests leave objects whose descriptors may be closed meanwhile. So it is no fault if
    there are fewer at the end.
    """
    before = _open_descriptors()
    yield
    left = _open_descriptors() - before
    assert not left, f"descriptors are left open: {sorted(left)}"


def _open_descriptors() -> set[tuple[int, int, int]]:
    # Objects that are garbage still have descriptors. A finalizer of the first round may make
    # garbage for the second.
    for _ in range(2):
        gc.collect()
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            info = os.fstat(int(name))
        except OSError:
            # The descriptor of the listing itself.
            continue
        found.add((int(name), info.st_dev, info.st_ino))
    return found
