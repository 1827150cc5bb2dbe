"""The words of ``/etc`` reports: one line for each change and each conflict.

The lines are those of upstream's ``config-diff`` (bootc, etc-merge ``print_diff``), which
tools read, without colour: ``Added "<path>"``, ``Modified``, ``Removed``, then
``Unmergable <reason>``. Paths are quoted as Rust's ``Debug`` does, so that a line is always
one line whatever a file is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bootc.deploy.etc.diff import Change
from bootc.printable import quoted


def report(changes: Iterable[Change], reasons: Iterable[str] = ()) -> Iterator[str]:
    """Yield the lines that tell of changes, in the order given, and of conflicts."""
    for change in changes:
        yield f'{change.kind.value} "{quoted(change.path)}"'
    for reason in reasons:
        yield f"Unmergable {reason}"
