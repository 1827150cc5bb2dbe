"""Counts the objects that a program stored."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """How many objects were stored through a handle, those that were there already apart."""

    new: int = 0
    new_bytes: int = 0
    present: int = 0
    present_bytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.new + other.new,
            self.new_bytes + other.new_bytes,
            self.present + other.present,
            self.present_bytes + other.present_bytes,
        )

    def __sub__(self, earlier: Tally) -> Tally:
        return Tally(
            self.new - earlier.new,
            self.new_bytes - earlier.new_bytes,
            self.present - earlier.present,
            self.present_bytes - earlier.present_bytes,
        )
