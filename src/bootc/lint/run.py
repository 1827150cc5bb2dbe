"""Runs lints over a root and tells what they find.

Owns: what is told, and in which words; builds are searched for them. Upstream's checks and
ours are counted apart, so that the counts of the former are upstream's.

A lint of upstream's that cannot run ends everything, as it does there. One of ours that
cannot run is a warning that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from bootc.errors import Error, doing, one_line
from bootc.fs.imageroot import ImageRoot
from bootc.fs.visit import visit
from bootc.lint.model import SHOWN_ITEMS, Lint, LintFinding, LintKind, RootType, render
from bootc.lint.table import LINTS


class LintFailed(Error):
    """A lint cannot run."""


class ChecksFailed(Error):
    """There are finds that count as failures."""


@dataclass(slots=True)
class _Counts:
    """Of upstream's checks, but for ``own_warnings``."""

    passed: int = 0
    skipped: int = 0
    fatal: int = 0
    warnings: int = 0
    own_warnings: int = 0


def lint(
    root: ImageRoot,
    write: Callable[[str], None],
    *,
    skip: Collection[str] = (),
    fatal_warnings: bool = False,
    limit: int | None = SHOWN_ITEMS,
    lints: Sequence[Lint] = LINTS,
) -> None:
    """Run the lints for a root, and write what they find and how many passed.

    Args:
        root: The root.
        write: Takes the text, piece by piece.
        skip: Names of lints that shall not run; unknown ones mean nothing.
        fatal_warnings: Let warnings be failures.
        limit: How many items of a list are written, None for all.
        lints: Which there are.

    Raises:
        ChecksFailed: there are failures; all has been written.
        LintFailed: a lint cannot run; what comes after it did not run.
    """
    counts = _Counts()
    with doing("Linting"):
        for one, finding in _findings(root, lints, skip, counts):
            fatal = one.kind is LintKind.FATAL
            counts.fatal += fatal
            counts.warnings += not fatal and not one.own
            counts.own_warnings += not fatal and one.own
            label = "Failed lint" if fatal else "Lint warning"
            write(f"{label}: {one.name}: {render(finding, limit)}\n")
        write(f"Checks passed: {counts.passed}\n")
        for what, count in (
            ("Checks skipped", counts.skipped),
            ("Warnings", counts.warnings),
            ("Warnings of pybootc", counts.own_warnings),
        ):
            if count:
                write(f"{what}: {count}\n")
        failures = counts.fatal
        if fatal_warnings:
            failures += counts.warnings + counts.own_warnings
        if failures:
            raise ChecksFailed(f"Checks failed: {failures}")


def _findings(
    root: ImageRoot, lints: Sequence[Lint], skip: Collection[str], counts: _Counts
) -> Iterator[tuple[Lint, LintFinding]]:
    """Yield what is found in the order of the lints; count what passes and what is skipped."""
    root_type = RootType.RUNNING if root.is_running else RootType.ALTERNATIVE
    looked: dict[str, LintFinding] | None = None
    wanted = [one for one in lints if one.name not in skip and one.root_type in (None, root_type)]
    counts.skipped = sum(not one.own for one in lints) - sum(not one.own for one in wanted)
    for one in wanted:
        if one.check is not None:
            finding = _checked(one, one.check, root)
        else:
            if looked is None:
                looked = _look(root, [other for other in wanted if other.look is not None])
            finding = looked.get(one.name)
        if finding is not None:
            yield one, finding
        elif not one.own:
            counts.passed += 1


def _checked(
    one: Lint, check: Callable[[ImageRoot], LintFinding | None], root: ImageRoot
) -> LintFinding | None:
    try:
        return check(root)
    except (Error, OSError) as exc:
        if one.own:
            return f"This cannot be checked: {one_line(exc)}"
        raise _cannot_run(one, exc) from exc


def _look(root: ImageRoot, lints: Sequence[Lint]) -> dict[str, LintFinding]:
    """Walk once for all lints that look at every name; each ends with its first find."""
    found: dict[str, LintFinding] = {}
    left = list(lints)
    try:
        with closing(visit(root.dir)) as walk:
            for visited in walk:
                for one in tuple(left):
                    finding = one.look(visited) if one.look else None
                    if finding is not None:
                        found[one.name] = finding
                        left.remove(one)
                if not left:
                    break
    except (Error, OSError) as exc:
        raise _cannot_run(left[0], exc) from exc
    return found


def _cannot_run(one: Lint, exc: Exception) -> LintFailed:
    return LintFailed(f"Unexpected runtime error running lint {one.name}: {one_line(exc)}")
