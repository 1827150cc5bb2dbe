"""What a lint is, and what it finds.

A lint that finds nothing returns None. What it finds is a sentence, or lists below
headings; :func:`render` makes text of either. A lint that cannot tell raises.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bootc.fs.imageroot import ImageRoot
from bootc.fs.visit import Visited

#: How the names of our lints begin.
OWN_PREFIX = "pybootc-"


class LintKind(enum.StrEnum):
    """What a find means."""

    #: The image will not install, or will not work.
    FATAL = "fatal"
    #: Its maker probably did not mean that.
    WARNING = "warning"


class RootType(enum.StrEnum):
    """Which root a lint is for, in the words of ``--list``."""

    RUNNING = "Running"
    ALTERNATIVE = "Alternative"


@dataclass(frozen=True, slots=True)
class Listing:
    """Items below a heading. The heading has no colon."""

    header: str
    items: Sequence[str]


LintFinding = str | tuple[Listing, ...]
Check = Callable[[ImageRoot], LintFinding | None]
Look = Callable[[Visited], LintFinding | None]


@dataclass(frozen=True, slots=True)
class Lint:
    """One lint.

    Attributes:
        name: What it is called in output and by ``--skip``.
        kind: What its finds mean.
        description: What it looks for, for ``--list``.
        check: Looks at a root; or
        look: looks at each name of the tree, until it finds something.
        root_type: The only kind of root it is for.
    """

    name: str
    kind: LintKind
    description: str
    check: Check | None = None
    look: Look | None = None
    root_type: RootType | None = None

    @property
    def own(self) -> bool:
        """Whether it is ours, and not upstream's."""
        return self.name.startswith(OWN_PREFIX)


def lists(*listings: Listing) -> LintFinding | None:
    """Return a finding of those lists that hold something, None if all are empty."""
    return tuple(listing for listing in listings if listing.items) or None
