"""Signals that end a command: each of them, several of them, and those that were ignored."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from bootc.fs.interruption import ENDING

#: Prints what happens, and does not end before it has waited for a second signal.
PROGRAM = """
import os, signal, sys, threading, time
from bootc.fs.interruption import *
raise_when_interrupted()
def wait(what):
    print(what, flush=True)
    try:
        time.sleep(1)
        print("nothing came", flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""
each = pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)


def run(program: str, *, ignored: tuple[signal.Signals, ...] = ()) -> list[str]:
    """Run a program whose words are what it prints; it must end well."""

    def ignore() -> None:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + program],
        capture_output=True,
        text=True,
        preexec_fn=ignore,
        check=False,
        timeout=20,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_all_that_ends_a_command() -> None:
    assert {number.name for number in ENDING} == {"SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM"}


@each
def test_each_interrupts(number: signal.Signals) -> None:
    timer = f"threading.Timer(0.1, os.kill, (os.getpid(), {int(number)})).start()"
    assert run(f"{timer}\nwait('go')") == ["go", "interrupted"]


@each
def test_what_was_ignored_stays_ignored(number: signal.Signals) -> None:
    kill = f"os.kill(os.getpid(), {int(number)})"
    program = f"{kill}\nwith undisturbed():\n    {kill}\nprint('went on')"
    assert run(program, ignored=(number,)) == ["went on"]


def test_signals_that_come_together_are_one_interruption() -> None:
    """As when a terminal closes: its shell sends another SIGHUP, a session SIGTERM."""
    program = """
try:
    os.kill(os.getpid(), signal.SIGHUP)
finally:
    os.kill(os.getpid(), signal.SIGHUP)
    os.kill(os.getpid(), signal.SIGTERM)
    print("cleaned up")
    sys.exit(0)
"""
    assert run(program) == ["cleaned up"]


def test_a_later_signal_interrupts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    program = """
from bootc.fs import interruption
interruption._ONE_INTERRUPTION_S = 0.2
for _ in range(2):
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    wait("go")
"""
    assert run(program) == ["go", "interrupted", "go", "interrupted"]


@each
def test_nothing_disturbs_a_block_that_must_end(number: signal.Signals) -> None:
    program = f"""
try:
    with undisturbed():
        for _ in range(3):
            os.kill(os.getpid(), {int(number)})
        print("whole", flush=True)
    print("not interrupted")
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run(program) == ["whole", "interrupted"]


def test_threads_leave_the_signals_to_the_main_thread() -> None:
    """Though one is sent to the very thread, which takes none."""
    program = """
with left_to_this_thread():
    thread = threading.Thread(target=time.sleep, args=(1.5,))
    thread.start()
print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
masked = open(f"/proc/self/task/{thread.native_id}/status").read()
mask = int(next(l for l in masked.splitlines() if l.startswith("SigBlk")).split()[1], 16)
print(all(mask >> (n - 1) & 1 for n in ENDING))
"""
    assert run(program) == ["[]", "True"]


def test_at_the_end_no_signal_counts() -> None:
    program = "ignore_from_now_on()\nos.kill(os.getpid(), signal.SIGTERM)\nprint('the end')"
    assert run(program) == ["the end"]
