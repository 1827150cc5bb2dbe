"""Lints and their findings, as values.

A finding is a sentence, or lists below headings. A lint returns None if it has no finding, and
raises an error if it cannot run. :mod:`bootc.cli.render.lint` has the text of findings.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bootc.fs.imageroot import ImageRoot
from bootc.fs.visit import Visited

#: Prefix of the names of lints that upstream does not have.
OWN_PREFIX = "pybootc-"


class LintKind(enum.StrEnum):
    """The severity of findings."""

    #: The image cannot be installed, or does not work.
    FATAL = "fatal"
    #: The image probably contains a mistake.
    WARNING = "warning"


class RootType(enum.StrEnum):
    """The kind of root that a lint is for, in the words of ``--list``."""

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
        name: Its name, in the output and for ``--skip``.
        kind: The severity of its findings.
        description: What a good image has, for ``--list``.
        check: Checks a root. A lint has either this or ``look``.
        look: Checks one name of the tree. It is called for each until it returns a finding.
        root_type: The only kind of root it is for, or None for all kinds.
    """

    name: str
    kind: LintKind
    description: str
    check: Check | None = None
    look: Look | None = None
    root_type: RootType | None = None

    @property
    def own(self) -> bool:
        """Whether upstream does not have this lint."""
        return self.name.startswith(OWN_PREFIX)


def lists(*listings: Listing) -> LintFinding | None:
    """Return a finding with the lists that are not empty, or None if all are empty."""
    return tuple(listing for listing in listings if listing.items) or None
