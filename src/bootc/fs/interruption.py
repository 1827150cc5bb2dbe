"""The signals that end a command, and blocks that delay them.

A terminal that closes, a user, a session that ends and a service manager each send another
signal. All of them raise ``KeyboardInterrupt`` in the main thread, so that every context
manager cleans up. Signals that were ignored when the process started (``nohup``, a shell's
background job) stay ignored.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: What ends a command: sent by a closing terminal, Ctrl-C, Ctrl-\ and service managers.
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
#: A terminal that closes and a service manager send more than one signal at once. Those that
#: follow so soon belong to the first one, and must not interrupt the cleaning up.
_ONE_INTERRUPTION_S = 2.0


def raise_when_interrupted() -> None:
    """Let the signals of :data:`ENDING` raise ``KeyboardInterrupt`` from now on."""
    last_s = float("-inf")

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last_s
        now_s = time.monotonic()
        if now_s - last_s >= _ONE_INTERRUPTION_S:
            last_s = now_s
            raise KeyboardInterrupt

    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def ignore_from_now_on() -> None:
    """Let no signal of :data:`ENDING` change how the process ends: its work is done."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let the signals of :data:`ENDING` wait until the block has ended.

    Programs that are started in the block inherit the mask. Another thread, such as one that
    draws progress, may take the signal all the same, and Python would raise it here.
    """
    held: list[int] = []
    handlers = {}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            handler = signal.getsignal(number)
            if handler is not signal.SIG_IGN:
                handlers[number] = handler
                signal.signal(number, lambda taken, _: held.append(taken))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler or signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for taken in held[:1]:
            signal.raise_signal(taken)


@contextmanager
def left_to_this_thread() -> Iterator[None]:
    """Keep the signals of :data:`ENDING` from the threads that are started in the block.

    A signal that another thread takes does not wake up the main thread from a system call.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
