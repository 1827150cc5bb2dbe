"""When the journeys of virtual machines end that only repeat what others show.

An emulated boot takes 25 seconds on one machine and two minutes on another, and CI has ninety
minutes for everything. What every change must show runs always: README's demo, the machines with
GRUB, the sealed machine and the attacks on it. The others repeat that with other kernels, failures
and power cuts. They begin their next part only while there is time left: ``make test`` says until
when, and pytest by itself has :data:`MINUTES`. ``BOOTC_ALL_CUTS=1`` removes the limit and has every
power cut made; ``make boot-all`` sets it for its cells.
"""

from __future__ import annotations

import os
import time

import pytest

MINUTES = 24
#: In seconds since 1970.
_END = "BOOTC_BOOT_UNTIL"


def start() -> None:
    """Start the clock, once for all processes of a run, unless the caller says when it ends."""
    if not os.environ.get(_END):
        os.environ[_END] = str(int(time.time()) + MINUTES * 60)


def is_unlimited() -> bool:
    """Tell whether everything is to be run, however long it takes."""
    return bool(os.environ.get("BOOTC_ALL_CUTS"))


def is_left(needed_minutes: int = 0) -> bool:
    """Tell whether another part of a journey may begin, which needs so many minutes."""
    return is_unlimited() or time.time() + needed_minutes * 60 < int(os.environ[_END])


def skip_rest(done: int, parts: int) -> None:
    """End a test that left out parts as skipped, so that its result says so."""
    if done < parts:
        pytest.skip(
            f"ran {done} of {parts} parts: the time for virtual machines is over "
            "(BOOTC_ALL_CUTS=1 runs everything)"
        )
