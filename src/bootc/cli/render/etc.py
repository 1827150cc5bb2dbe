"""Local changes of ``/etc`` and their merge, for people and for programs.

The lines of changes and conflicts are those of upstream's ``config-diff`` (bootc, etc-merge
``print_diff``), which tools read, without colour: ``Added "<path>"``, ``Modified``,
``Removed``, then ``Unmergable <reason>``. In these lines paths have the escapes of Rust's
``Debug``, because scripts compare them with upstream's. All other lines use
:func:`~bootc.printable.printable`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from bootc.cli.render.structured import name_value
from bootc.printable import printable, quoted

if TYPE_CHECKING:
    from bootc.deploy.etc.diff import Change
    from bootc.deploy.etc.review import MergeReview, Review


def change_lines(changes: Iterable[Change], reasons: Iterable[str] = ()) -> Iterator[str]:
    """Yield one line for each change, in the order given, and then one for each conflict."""
    for change in changes:
        # Upstream's line, compared by scripts.
        yield f'{change.kind.value} "{quoted(change.path)}"'
    for reason in reasons:
        yield f"Unmergable {reason}"


def review_lines(review: Review) -> Iterator[str]:
    """Yield the lines of ``bootc etc diff``."""
    yield from change_lines(review.changes)
    if not review.changes:
        yield "No local changes."
    if review.decisions:
        yield ""
        yield "Decided:"
        for path, choice in sorted(review.decisions.items()):
            yield f'  {choice.value} "{printable(path)}"'
    if review.staged is not None:
        yield ""
        yield f"Merged into staged deployment {review.staged.deployment}:"
        yield from (f"  {line}" for line in _merge_lines(review.staged))


def _merge_lines(merge: MergeReview) -> Iterator[str]:
    for path in merge.shadowed:
        yield f'Local version stays, the new image\'s is not used: "{printable(path)}"'
    unresolved = 0
    for conflict in merge.conflicts:
        if conflict.resolution is None:
            unresolved += 1
            yield f"Unmergable {conflict.reason}"
        else:
            yield f"Resolved ({merge.policy.value}) {conflict.reason}"
    if unresolved:
        yield "The update cannot be finalized: decide with bootc etc keep PATH or take PATH."
    else:
        yield "No conflict is unresolved."


def review_json(review: Review) -> dict[str, Any]:
    """Return the JSON of ``bootc etc diff --json``."""
    staged = review.staged
    return {
        "changes": [
            {**name_value("path", change.path), "change": change.kind.value.lower()}
            for change in review.changes
        ],
        "decisions": [
            {**name_value("path", path), "choice": choice.value}
            for path, choice in sorted(review.decisions.items())
        ],
        "staged": None if staged is None else _merge_json(staged),
    }


def _merge_json(merge: MergeReview) -> dict[str, Any]:
    return {
        "deployment": merge.deployment.hex,
        "policy": merge.policy.value,
        "mergeable": all(conflict.resolution is not None for conflict in merge.conflicts),
        "conflicts": [
            {
                **name_value("path", conflict.path),
                "reason": conflict.reason,
                "resolution": None if conflict.resolution is None else conflict.resolution.value,
            }
            for conflict in merge.conflicts
        ],
        "shadowed": [name_value("path", path) for path in merge.shadowed],
    }
