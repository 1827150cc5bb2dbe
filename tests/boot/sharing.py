"""Which tests one process runs, where several run side by side (pytest-xdist).

Those of a family of images share its build and an installation, others with virtual machines
those of their file, and all without one this machine's mounts and loop devices. Not by marks:
how those reach the scheduler depends on versions of both packages.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

_FAMILY = re.compile(r"\[(?:.*-)?(type1|uki)(?:-.*)?\]$")


class Sharing(LoadScopeScheduling):
    """Gives a process at a time what belongs together, the most tests first."""

    def _split_scope(self, nodeid: str) -> str:
        return shared_by(nodeid)


def shared_by(nodeid: str) -> str:
    """Return the name of what a test shares with others."""
    family, path = _FAMILY.search(nodeid), nodeid.partition("::")[0]
    if "boot" not in path.split("/"):
        return "this machine"
    return family[1] if family else path
