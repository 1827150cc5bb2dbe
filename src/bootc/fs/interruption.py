"""The signals that end a command, and blocks that delay them.

A terminal that closes, a user, a session that ends and a service manager each send a different
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

#: Sent by a closing terminal, Ctrl-C, Ctrl-\ and service managers, in this order.
ENDING = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM)
#: A terminal that closes and a service manager send several signals at once. Signals within this
#: time after the first one must not interrupt the clean-up.
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
    """Ignore the signals of :data:`ENDING`, because the work of the process is done."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Delay the signals of :data:`ENDING` until the block has ended.

    Programs that start in the block inherit the mask. Another thread, for example one that draws
    progress, may still take a signal.
    """
    # Python runs the handler in the main thread, whichever thread takes the signal.
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
