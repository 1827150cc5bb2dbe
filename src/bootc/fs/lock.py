"""Advisory locks (``flock``) on a directory, shared with every other tool that honours them.

The lock belongs to the open directory, not to the process: it is held until the
:class:`Dir` is closed, and two Dirs of one directory in one process exclude each
other like two processes do. Hold one handle and pass it down. A process that would
wait for its own lock gets :class:`LockedHere` instead of a deadlock.

Anybody who can open a directory can lock it. A lock that root waits for is therefore on a
directory that only root can open; :func:`lock_among_root` is for other directories.

Changing between a shared and an exclusive lock is not atomic: another process may hold
the lock in between. The caller must read its data again.
"""

from __future__ import annotations

import fcntl
import os
import time
from dataclasses import dataclass

from bootc.errors import Error, doing
from bootc.events import Notice, Sink, null_sink
from bootc.fs import mounts
from bootc.fs.dir import Dir
from bootc.kernel import proc
from bootc.printable import printable

#: Most locks are released within this time. Only a longer wait causes a message.
_QUIET_S = 0.5
_POLL_S = 0.05
#: If no process of root is found for this time, the lock does not belong to root.
_SEARCH_S = 1.0


class LockedByOther(Error):
    """Another process holds a lock that excludes ours."""


class LockedHere(Error):
    """This process itself holds a lock that excludes ours, through another handle."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a lock. ``is_root``: all its user ids are those of root."""

    pid: int
    command: str | None
    is_root: bool

    def __str__(self) -> str:
        return f"process {self.pid}" + (f" ({self.command})" if self.command else "")


def lock_shared(directory: Dir, *, wait: bool = True, sink: Sink = null_sink) -> None:
    """Take a shared lock on a directory. It replaces an exclusive lock of the same handle.

    Args:
        directory: What to lock.
        wait: Wait until no process holds it exclusively.
        sink: Receives a message if this takes more than a moment.

    Raises:
        LockedByOther: another process holds it, and ``wait`` is false.
        LockedHere: this process holds it, through another handle.
    """
    _lock(directory, fcntl.LOCK_SH, wait, sink)


def lock_exclusive(directory: Dir, *, wait: bool = False, sink: Sink = null_sink) -> None:
    """Take an exclusive lock on a directory. It replaces a shared lock of the same handle.

    A failure loses the shared lock.

    Args:
        directory: What to lock.
        wait: Wait until no other process holds it.
        sink: Receives a message if this takes more than a moment.

    Raises:
        LockedByOther: another process holds it, and ``wait`` is false.
        LockedHere: this process holds it, through another handle.
    """
    _lock(directory, fcntl.LOCK_EX, wait, sink)


def lock_among_root(directory: Dir, *, wait: bool = False, sink: Sink = null_sink) -> None:
    """Take an exclusive lock on a directory that any user can open, against processes of root.

    If only processes of other users hold it, the block runs without the lock.

    Args:
        directory: What to lock.
        wait: Wait until no process of root holds it.
        sink: Receives a message if this takes more than a moment.

    Raises:
        LockedByOther: a process of root holds it, and ``wait`` is false.
        LockedHere: this process holds it, through another handle.
    """
    begun_s = time.monotonic()
    told = False
    with doing(f"Locking {directory.path}"):
        while not _try(directory, fcntl.LOCK_EX):
            _refuse_to_wait_for_itself(directory)
            found = holders(directory)
            roots = [holder for holder in found if holder.is_root]
            if not roots and (found or time.monotonic() - begun_s > _SEARCH_S):
                return
            if roots and not wait:
                raise _locked(directory, roots)
            if roots and not told and time.monotonic() - begun_s > _QUIET_S:
                sink(_waiting(directory, roots))
                told = True
            # Not flock() without LOCK_NB: a process of another user could get the lock first.
            time.sleep(_POLL_S)


def holders(directory: Dir) -> list[Holder]:
    """Return the processes that hold a lock on a directory, as far as they can be found.

    Source: ``/proc/locks`` in proc(5). A lock that was taken in another PID namespace is not
    listed. A process that took a lock may have passed it on to a child and ended.
    """
    try:
        entry, locks = mounts.mount_of(directory), proc.read_table("/proc/locks")
    except (Error, OSError):
        return []  # who it is would be nice to know, and decides nothing
    if entry is None:
        return []
    # /proc/locks has the device number of the file system. On btrfs stat(2) returns another one.
    major, minor = map(int, entry.device.split(":"))
    wanted = f"{major:02x}:{minor:02x}:{os.fstat(directory.fileno()).st_ino}".encode()
    found = []
    for line in locks:
        match line.split():
            # Lines of waiting processes begin with an arrow, and do not match.
            case [_, b"FLOCK", _, _, pid, place, *_] if place == wanted and pid.isdigit():
                found.append(_holder(int(pid)))
    return found


def _holder(pid: int) -> Holder:
    try:
        command = b"\n".join(proc.read_table(f"/proc/{pid}/comm"))
        # Real, effective, saved and file system user. In a program with setuid they differ.
        users = proc.read_fields(f"/proc/{pid}/status", b":").get(b"Uid", b"").split()
    except OSError:  # the process has ended, or /proc hides it
        return Holder(pid, None, False)
    return Holder(pid, printable(command), users == [b"0"] * 4)


def _lock(directory: Dir, operation: int, wait: bool, sink: Sink) -> None:
    with doing(f"Locking {directory.path}"):
        patience = time.monotonic() + (_QUIET_S if wait else 0)
        while not _try(directory, operation):
            _refuse_to_wait_for_itself(directory)
            if not wait:
                raise _locked(directory, holders(directory))
            if time.monotonic() >= patience:
                sink(_waiting(directory, holders(directory)))
                fcntl.flock(directory.fileno(), operation)
                return
            time.sleep(_POLL_S)


def _locked(directory: Dir, found: list[Holder]) -> LockedByOther:
    return LockedByOther(
        f"{directory.path} is in use by {_named(found)}",
        hint="wait until it has finished, then try again",
    )


def _waiting(directory: Dir, found: list[Holder]) -> Notice:
    return Notice(f"Waiting for {_named(found)}, which uses {directory.path}")


def _named(found: list[Holder]) -> str:
    # The first holder is enough for a message.
    return str(found[0]) if found else "another process"


def _try(directory: Dir, operation: int) -> bool:
    try:
        fcntl.flock(directory.fileno(), operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refuse_to_wait_for_itself(directory: Dir) -> None:
    # This is checked each time, because another thread may open the directory at any time.
    if _held_here(directory):
        raise LockedHere(
            f"{directory.path} is open twice in this process, which would wait for itself",
            hint="close the other handle, or pass one down",
        )


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
            continue  # closed in between, like the descriptor of this listing
    return False
