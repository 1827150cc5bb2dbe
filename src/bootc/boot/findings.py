"""Findings: problems that are reported and do not stop a command.

Other systems, editors of administrators and power cuts leave their traces on a boot
partition. One odd thing never makes reading it fail: it becomes a finding, and the caller
decides whether to show it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class FindingKind(enum.StrEnum):
    """The kinds of problems."""

    #: It belongs to another system. bootc leaves it alone.
    FOREIGN = "foreign"
    #: It has a name of ours and is not understood. A half-written file is of this kind.
    MALFORMED = "malformed"
    #: It repeats an earlier thing.
    DUPLICATE = "duplicate"
    #: It exists and cannot be read.
    UNREADABLE = "unreadable"
    #: The firmware or a loader needs it and does not have it.
    MISSING = "missing"
    #: A command wanted to change it and failed.
    FAILED = "failed"
    #: It protects the machine less than the booted deployment does.
    WEAKER = "weaker"
    #: It shall be the same as another thing, and differs.
    OUTDATED = "outdated"
    #: Nothing needs it, and removing it failed.
    LEFTOVER = "leftover"


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem.

    Attributes:
        kind: The kind, for programs.
        subject: The path or the name of the thing.
        text: The problem, for people: one line that continues the subject.
    """

    kind: FindingKind
    subject: str
    text: str
