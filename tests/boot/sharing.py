"""Which tests one process runs, where several run side by side (pytest-xdist).

Those of a family of images share its build and an installation, other tests those of their
file. Not by marks: how those reach the scheduler depends on versions of both packages.
"""

from __future__ import annotations

import re

from xdist.scheduler import LoadScopeScheduling

_FAMILY = re.compile(r"\[(?:.*-)?(type1|uki)(?:-.*)?\]$")


class Sharing(LoadScopeScheduling):
    """Gives a process a family, or a file, at a time; those with most tests first."""

    def _split_scope(self, nodeid: str) -> str:
        return shared_by(nodeid)


def shared_by(nodeid: str) -> str:
    """Return the name of what a test shares with others."""
    family = _FAMILY.search(nodeid)
    return family[1] if family else nodeid.partition("::")[0]
