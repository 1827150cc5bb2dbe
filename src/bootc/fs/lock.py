"""Advisory locks (``flock``) on a directory, shared with every other tool that honours them.

The lock belongs to the open directory, not to the process: it is held until the
:class:`Dir` is closed, and two Dirs of one directory in one process exclude each
other like two processes do. Hold one handle and pass it down.
"""

from __future__ import annotations

import fcntl

from bootc.errors import Error, doing
from bootc.fs.dir import Dir


class LockedByOther(Error):
    """Another process holds a lock that excludes ours."""


def lock_shared(directory: Dir) -> None:
    """Wait until nobody holds the directory exclusively, then hold it shared."""
    with doing(f"Locking {directory.path}"):
        fcntl.flock(directory.fileno(), fcntl.LOCK_SH)


def lock_exclusive(directory: Dir) -> None:
    """Hold the directory alone; a shared lock held before is traded in.

    Raises:
        LockedByOther: somebody else holds it. The shared lock may be lost then.
    """
    try:
        with doing(f"Locking {directory.path}"):
            fcntl.flock(directory.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise LockedByOther(
            f"{directory.path} is in use by another process",
            hint="wait until it has finished, then try again",
        ) from exc
