"""Which tests one process runs, where several run side by side (pytest-xdist).

Those of a family of images share its build and an installation, others with virtual machines
those of their file, and all that change this machine its mounts and loop devices. The others share
nothing but what is in their file, so that the process which is free first runs them in the end.
Not by marks: how those reach the scheduler depends on versions of both packages.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from xdist.scheduler import LoadScopeScheduling

if TYPE_CHECKING:
    from xdist.remote import Producer

#: What begins first: the machines that every change must boot, then the tests that change this
#: machine. A process takes the next that nobody has, and holds one more in reserve.
_FIRST = (
    "tests/boot/test_journey.py",
    "tests/boot/test_grub.py",
    "tests/boot/test_sealed.py",
    "this machine",
)
#: Directories of tests that change nothing on this machine.
_ANYWHERE = {"crash", "property", "vectors"}
_FAMILY = re.compile(r"\[(?:.*-)?(type1|uki)(?:-.*)?\]$")


class Sharing(LoadScopeScheduling):
    """Gives a process at a time what belongs together, in the order of the collection."""

    def __init__(self, config: pytest.Config, log: Producer | None = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return shared_by(nodeid)


def rank(nodeid: str) -> int:
    """Return the place of a test in the order: the lower, the earlier.

    What may be left out when the time is over comes last.
    """
    name = shared_by(nodeid)
    if name in _FIRST:
        return _FIRST.index(name)
    return len(_FIRST) + ("boot" in nodeid.split("/"))


def shared_by(nodeid: str) -> str:
    """Return the name of what a test shares with others."""
    family, path = _FAMILY.search(nodeid), nodeid.partition("::")[0]
    directories = set(path.split("/"))
    if "boot" not in directories:
        return path if directories & _ANYWHERE else "this machine"
    return family[1] if family else path
