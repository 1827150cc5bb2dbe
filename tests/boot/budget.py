"""How long the journeys of virtual machines take in one run of pytest.

An emulated boot takes 25 seconds on one machine and two minutes on another, and CI has ninety
minutes for everything. A journey therefore begins its next part only while there is time left.
The first parts show that updates work; later ones repeat that with other kernels, failures and
power cuts. ``BOOTC_ALL_CUTS=1`` removes the limit and has every power cut made; ``make boot-all``
sets it for its cells.
"""

from __future__ import annotations

import os
import time

import pytest

MINUTES = 24
_STARTED = "BOOTC_BOOT_STARTED"


def start() -> None:
    """Start the clock, once for all processes of a run."""
    os.environ.setdefault(_STARTED, str(time.time()))


def is_unlimited() -> bool:
    """Tell whether everything is to be run, however long it takes."""
    return bool(os.environ.get("BOOTC_ALL_CUTS"))


def is_left(needed_minutes: int = 0) -> bool:
    """Tell whether another part of a journey may begin, which needs so many minutes."""
    left = MINUTES - needed_minutes
    return is_unlimited() or time.time() - float(os.environ[_STARTED]) < left * 60


def skip_rest(done: int, parts: int) -> None:
    """End a test that left out parts as skipped, so that its result says so."""
    if done < parts:
        pytest.skip(
            f"ran {done} of {parts} parts: the {MINUTES} minutes for virtual machines are over "
            "(BOOTC_ALL_CUTS=1 runs everything)"
        )
