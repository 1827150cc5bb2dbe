"""Advisory locks (``flock``) on a directory, shared with every other tool that honours them.

The lock belongs to the open directory, not to the process: it is held until the
:class:`Dir` is closed, and two Dirs of one directory in one process exclude each
other like two processes do. Hold one handle and pass it down. Who waits for himself
is told so, instead of waiting for ever.

Trading a lock for another is not one step: in between, somebody else may have had it.
What was read before has to be read again.
"""

from __future__ import annotations

import fcntl
import os
import time

from bootc.errors import Error, doing
from bootc.events import Message, Sink, null_sink
from bootc.fs.dir import Dir
from bootc.kernel import proc

#: Most who hold a lock are gone after this long, so that nobody needs to hear of it.
_QUIET_S = 0.5
_POLL_S = 0.05


class LockedByOther(Error):
    """Another process holds a lock that excludes ours."""


class LockedHere(Error):
    """This very process holds a lock that excludes ours, through another handle."""


def lock_shared(directory: Dir, *, wait: bool = True, sink: Sink = null_sink) -> None:
    """Hold the directory together with others; an exclusive lock held before is traded in.

    Args:
        directory: What to lock.
        wait: Wait until nobody holds it exclusively.
        sink: Told when that takes more than a moment.

    Raises:
        LockedByOther: another process holds it, and ``wait`` is false.
        LockedHere: this process holds it, through another handle.
    """
    _lock(directory, fcntl.LOCK_SH, wait, sink)


def lock_exclusive(directory: Dir, *, wait: bool = False, sink: Sink = null_sink) -> None:
    """Hold the directory alone; a shared lock held before is traded in.

    Args:
        directory: What to lock.
        wait: Wait until nobody else holds it.
        sink: Told when that takes more than a moment.

    Raises:
        LockedByOther: another process holds it, and ``wait`` is false. The shared lock is
            lost then.
        LockedHere: this process holds it, through another handle. The shared lock is lost then.
    """
    _lock(directory, fcntl.LOCK_EX, wait, sink)


def _lock(directory: Dir, operation: int, wait: bool, sink: Sink) -> None:
    with doing(f"Locking {directory.path}"):
        patience = time.monotonic() + (_QUIET_S if wait else 0)
        while not _try(directory, operation):
            # Asked each time: what another thread opens meanwhile counts as well.
            if _held_here(directory):
                raise LockedHere(
                    f"{directory.path} is open twice in this process, which would wait for itself",
                    hint="close the other handle, or pass one down",
                )
            if not wait:
                raise LockedByOther(
                    f"{directory.path} is in use by another process",
                    hint="wait until it has finished, then try again",
                )
            if time.monotonic() >= patience:
                sink(Message(f"Waiting for another process that uses {directory.path}"))
                fcntl.flock(directory.fileno(), operation)
                return
            time.sleep(_POLL_S)


def _try(directory: Dir, operation: int) -> bool:
    try:
        fcntl.flock(directory.fileno(), operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _held_here(directory: Dir) -> bool:
    """Tell whether another descriptor of this process holds a lock on the same directory."""
    own = directory.fileno()
    wanted = os.fstat(own)
    for name in os.listdir("/proc/self/fd"):
        try:
            info = os.stat(f"/proc/self/fd/{name}")
            if int(name) != own and os.path.samestat(info, wanted):
                lines = proc.read_table(proc.fdinfo(int(name)))
                if any(line.startswith(b"lock:") and b"FLOCK" in line for line in lines):
                    return True
        except FileNotFoundError:
            continue  # closed since, as the one of the listing itself
    return False
