"""Locks exclude each other between open directories, not between processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.events import Event, Notice
from bootc.fs.dir import Dir
from bootc.fs.lock import (
    LockedByOther,
    LockedHere,
    holders,
    lock_among_root,
    lock_exclusive,
    lock_shared,
)
from support import children


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


#: Holds a lock until its standard input ends, or for a minute, as a user if that is asked for.
HOLD = """
import fcntl, os, signal, sys
signal.alarm(60)
fd = os.open(sys.argv[1], os.O_RDONLY)
open("/proc/self/comm", "wb").write(b"a\\x1b[2J\\n\\xff")
if len(sys.argv) > 2:
    os.setgroups([])
    os.setresgid(4711, 4711, 4711)
    os.setresuid(*map(int, sys.argv[2].split(",")))
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held(directory: Path, users: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Let another process hold a directory; it runs as three users: real, effective, saved."""
    argv = [sys.executable, "-c", HOLD, str(directory), *filter(None, [users])]
    with children.running(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process


def test_who_holds_a_lock_is_named(tmp_path: Path) -> None:
    with held(tmp_path) as process, Dir.open(tmp_path) as directory:
        (holder,) = holders(directory)
        assert holder.pid == process.pid
        assert holder.is_root == (Path(f"/proc/{process.pid}").stat().st_uid == 0)
        # A process can call itself anything.
        assert holder.command == r"a\x1b[2J\n\xff"
        for lock in (lock_exclusive, lock_shared):
            with pytest.raises(LockedByOther) as caught:
                lock(directory, wait=False)
            assert caught.value.message == f"{tmp_path} is in use by {holder}"
            assert caught.value.hint == "wait until it has finished, then try again"
    with Dir.open(tmp_path) as directory:
        assert holders(directory) == []


def test_a_wait_says_for_whom(tmp_path: Path) -> None:
    events: list[Event] = []
    with Dir.open(tmp_path) as directory, held(tmp_path) as process:
        assert process.stdin is not None

        def release(event: Event) -> None:
            events.append(event)
            process.stdin.close()  # type: ignore[union-attr]

        lock_exclusive(directory, wait=True, sink=release)
    (message,) = events
    assert isinstance(message, Notice)
    assert message.text.startswith(f"Waiting for process {process.pid} (a")
    assert message.text.endswith(f"), which uses {tmp_path}")


def test_one_who_waits_holds_nothing(tmp_path: Path) -> None:
    with held(tmp_path) as process, Dir.open(tmp_path) as directory:
        argv = [sys.executable, "-c", HOLD, str(tmp_path)]
        with children.running(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as waiting:
            deadline = time.monotonic() + children.DEADLINE_S
            while b"-> FLOCK" not in Path("/proc/locks").read_bytes():
                assert time.monotonic() < deadline
            assert [holder.pid for holder in holders(directory)] == [process.pid]
            waiting.kill()


@pytest.mark.root
@pytest.mark.parametrize("users", ["4711,4711,4711", "4711,0,0", "4711,0,4711", "4711,4711,0"])
def test_root_does_not_wait_for_users(tmp_path: Path, users: str) -> None:
    """Nor for a program with setuid that a user started."""
    tmp_path.chmod(0o755)
    with held(tmp_path, users), Dir.open(tmp_path) as directory:
        assert [holder.is_root for holder in holders(directory)] == [False]
        for wait in (False, True):
            lock_among_root(directory, wait=wait)


@pytest.mark.root
def test_root_waits_for_root(tmp_path: Path) -> None:
    events: list[Event] = []
    with Dir.open(tmp_path) as directory, held(tmp_path) as process:
        with pytest.raises(LockedByOther, match=f"in use by process {process.pid}"):
            lock_among_root(directory, wait=False)

        def release(event: Event) -> None:
            events.append(event)
            process.stdin.close()  # type: ignore[union-attr]

        lock_among_root(directory, wait=True, sink=release)
        assert len(events) == 1
        with Dir.open(tmp_path) as other, pytest.raises(LockedHere):
            lock_among_root(other)
