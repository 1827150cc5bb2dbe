"""What was found that is not as it should be, and stops nobody.

A boot partition is shared with other systems, with administrators' editors and with
power cuts. Reading it never fails for one thing in it that is odd; that thing becomes
a finding, and whoever asked decides whether to show it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class FindingKind(enum.StrEnum):
    """How far a thing is from what it should be."""

    #: It belongs to somebody else, and is left alone.
    FOREIGN = "foreign"
    #: It is ours by name, but cannot be understood; half-written things are of this kind.
    MALFORMED = "malformed"
    #: It says again what another one said before.
    DUPLICATE = "duplicate"
    #: It is there and cannot be read.
    UNREADABLE = "unreadable"
    #: Something was to be done to it, and could not be done.
    FAILED = "failed"
    #: It protects the machine less than what runs does.
    WEAKER = "weaker"
    #: Nothing needs it, and it could not be removed.
    LEFTOVER = "leftover"


@dataclass(frozen=True, slots=True)
class Finding:
    """One such thing.

    Attributes:
        kind: What a program tells findings apart by.
        subject: The thing, by its path.
        text: What is the matter with it, for people: one line that follows on the subject.
    """

    kind: FindingKind
    subject: str
    text: str
