"""The directories for a command's result. If the command fails, the new ones are removed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from bootc.errors import doing


@contextlib.contextmanager
def directories_made(path: str, below: str = "") -> Iterator[None]:
    """Make a directory with its parents. If the block fails, remove those that are empty again.

    Args:
        path: The directory. Existing content of it and of its parents is kept.
        below: A directory in it that the block makes, and that is removed in the same way.

    Raises:
        OSError: a directory cannot be made.
    """
    made = []
    missing = os.path.abspath(os.path.join(path, below))
    while not os.path.lexists(missing):
        made.append(missing)
        missing = os.path.dirname(missing)
    try:
        with doing(f"Making {path}"):
            os.makedirs(path, exist_ok=True)
        yield
    except BaseException:
        # The deepest comes first. A directory that is not empty is kept, with all above it.
        with contextlib.suppress(OSError):
            for directory in made:
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(directory)
        raise
