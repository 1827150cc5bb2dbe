"""Other processes that run beside a test. None of them can make it wait for ever.

``subprocess.run`` needs no help: when the time of a test is over, it kills its child. What
runs beside a test is started here and nowhere else (``tests/unit/test_tests.py``).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: How long a child may take to do what a test waits for.
DEADLINE_S = 60

#: Locks a directory, says so, and holds the lock until its input ends. The alarm is for a
#: parent that has died or forgets it.
_HOLDER = """
import fcntl, os, signal, sys
signal.alarm(int(sys.argv[3]))
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), int(sys.argv[2]))
os.write(1, b"locked\\n")
sys.stdin.read()
"""


@contextlib.contextmanager
def running(argv: Sequence[str | os.PathLike[str]], **options: Any) -> Iterator[subprocess.Popen]:
    """Start a child, and see to its end.

    Args:
        argv: The program and its arguments.
        options: More for ``subprocess.Popen``.

    Raises:
        subprocess.TimeoutExpired: it did not end by itself within :data:`DEADLINE_S` after the
            block.
    """
    child = subprocess.Popen(argv, **options)
    try:
        yield child
        if child.stdin is not None:
            child.stdin.close()
        child.wait(DEADLINE_S)
    finally:
        child.kill()
        child.wait(DEADLINE_S)
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream is not None:
                stream.close()


def wait_for_session(leader: int) -> None:
    """Wait until a session has ended: a child, and what it had started when it was killed.

    Args:
        leader: The child's number; it was started with ``start_new_session``.

    Raises:
        TimeoutError: a process of it still runs after :data:`DEADLINE_S`.
    """
    end = time.monotonic() + DEADLINE_S
    while left := _running_in(leader):
        if time.monotonic() > end:
            raise TimeoutError(f"still there: {left}")
        time.sleep(0.01)


def _running_in(session: int) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            name, _, rest = path.read_text().rpartition(")")
            state, _, _, number = rest.split()[:4]
            if int(number) == session and state not in "ZX":
                found.append(name)
    return found


@dataclass(frozen=True)
class Holder:
    """A process that holds a lock; ``let_go`` makes it release the lock and end."""

    pid: int
    let_go: Callable[[], None]


@contextlib.contextmanager
def lock_held(path: str | os.PathLike[str], operation: int) -> Iterator[Holder]:
    """Let another process hold a lock on a directory, and yield that process.

    Args:
        path: The directory.
        operation: ``fcntl.LOCK_SH`` or ``fcntl.LOCK_EX``.
    """
    argv = [sys.executable, "-c", _HOLDER, os.fspath(path), str(operation), str(DEADLINE_S)]
    with running(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        ready, _, _ = select.select([holder.stdout], [], [], DEADLINE_S)
        assert ready, f"{path} was not locked within {DEADLINE_S} s"
        assert os.read(holder.stdout.fileno(), 64) == b"locked\n"
        yield Holder(holder.pid, holder.stdin.close)


def let_go_after(seconds: float, release: Callable[[], None]) -> None:
    """Call ``let_go`` of a :class:`Holder` a little later, while the test waits for the lock."""
    timer = threading.Timer(seconds, release)
    timer.daemon = True
    timer.start()


def exit_status_of_fork(work: Callable[[], object]) -> int:
    """Do something in a copy of this process, and return how that ended.

    Args:
        work: What the copy does. When it returns, that is status 0; what it raises is shown, and
            is status 1.

    Returns:
        The exit status; negative when a signal ended the copy, SIGALRM when its time was over.
    """
    child = os.fork()
    if child == 0:
        # pytest-timeout has its own idea of this signal.
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(DEADLINE_S)
            work()
            os._exit(0)
        except BaseException:  # noqa: BLE001  (nothing may leave the child)
            traceback.print_exc()
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
