"""To be refused by the mode of a file, whoever runs the tests."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_NOBODY = 65534


@contextlib.contextmanager
def bound_by_mode(file: Path | int, mode: int) -> Iterator[None]:
    """Give a file a mode within the block, and be somebody whom it binds.

    Args:
        file: A path, or a descriptor.
        mode: Should take a right from the owner and from all others: root is one of the others
            within the block, another user stays the owner.
    """
    before = stat.S_IMODE(os.stat(file).st_mode)
    is_root = os.geteuid() == 0
    os.chmod(file, mode)
    try:
        if is_root:
            os.seteuid(_NOBODY)
        try:
            yield
        finally:
            if is_root:
                os.seteuid(0)
    finally:
        os.chmod(file, before)  # who clears the directory away wants to look into it
