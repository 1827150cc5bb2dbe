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
from bootc.events import Message, Sink, null_sink
from bootc.fs import mounts
from bootc.fs.dir import Dir
from bootc.kernel import proc
from bootc.printable import printable

#: Most who hold a lock are gone after this long, so that nobody needs to hear of it.
_QUIET_S = 0.5
_POLL_S = 0.05
#: A lock whose holder cannot be found for so long is not one of root's.
_SEARCH_S = 1.0


class LockedByOther(Error):
    """Another process holds a lock that excludes ours."""


class LockedHere(Error):
    """This very process holds a lock that excludes ours, through another handle."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a lock. ``is_root`` says that it runs as root and as nobody else."""

    pid: int
    command: str | None
    is_root: bool

    def __str__(self) -> str:
        return f"process {self.pid}" + (f" ({self.command})" if self.command else "")


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


def lock_among_root(directory: Dir, *, wait: bool = False, sink: Sink = null_sink) -> None:
    """Hold a directory that anybody can open, alone among the processes of root.

    If others than root hold it, the block goes on without the lock.

    Args:
        directory: What to lock.
        wait: Wait until no process of root holds it.
        sink: Told when that takes more than a moment.

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
            # Not in the kernel, where somebody else could get the lock before this process.
            time.sleep(_POLL_S)


def holders(directory: Dir) -> list[Holder]:
    """Return the processes that hold a lock on a directory, as far as they can be found.

    Source: ``/proc/locks`` in proc(5). A lock that was taken in another PID namespace is not
    listed, and a process that took one may have left it to a child.
    """
    try:
        entry, locks = mounts.mount_of(directory), proc.read_table("/proc/locks")
    except (Error, OSError):
        return []  # who it is would be nice to know, and decides nothing
    if entry is None:
        return []
    # In the number of the file system itself, which stat(2) does not tell on btrfs.
    major, minor = map(int, entry.device.split(":"))
    wanted = f"{major:02x}:{minor:02x}:{os.fstat(directory.fileno()).st_ino}".encode()
    found = []
    for line in locks:
        match line.split():
            # Those who wait have an arrow in front.
            case [_, b"FLOCK", _, _, pid, place, *_] if place == wanted and pid.isdigit():
                found.append(_holder(int(pid)))
    return found


def _holder(pid: int) -> Holder:
    try:
        command = b"\n".join(proc.read_table(f"/proc/{pid}/comm"))
        # Real, effective, saved and file system user; a program with setuid differs.
        users = proc.read_fields(f"/proc/{pid}/status", b":").get(b"Uid", b"").split()
    except OSError:  # it has ended, or is nobody's business
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


def _waiting(directory: Dir, found: list[Holder]) -> Message:
    return Message(f"Waiting for {_named(found)}, which uses {directory.path}")


def _named(found: list[Holder]) -> str:
    # The one that waits longest for us is enough.
    return str(found[0]) if found else "another process"


def _try(directory: Dir, operation: int) -> bool:
    try:
        fcntl.flock(directory.fileno(), operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refuse_to_wait_for_itself(directory: Dir) -> None:
    # Asked each time: what another thread opens meanwhile counts as well.
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
            continue  # closed since, as the one of the listing itself
    return False
