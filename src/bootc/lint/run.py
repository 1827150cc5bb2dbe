"""Runs the lints over a root, and counts their findings.

bootc's own checks have counts of their own, so the other counts are those of upstream.

If a lint of upstream cannot run, all lints end, as in upstream. If one of bootc's own cannot
run, that is a warning. :mod:`bootc.cli.render.lint` has the words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from bootc.errors import Error, doing, one_line
from bootc.events import Notice, Sink, null_sink
from bootc.fs.imageroot import ImageRoot
from bootc.fs.visit import visit
from bootc.lint.model import Lint, LintFinding, LintKind, RootType
from bootc.lint.table import LINTS
from bootc.printable import printable

#: A walk that takes no longer is silent.
_SILENT_S = 5.0
#: The clock is read once for so many names.
_NAMES_A_LOOK = 1024


class LintFailed(Error):
    """A lint cannot run."""


class ChecksFailed(Error):
    """Some findings count as failures."""


@dataclass(slots=True)
class Counts:
    """The results of upstream's checks, and ``own_warnings``, which are those of bootc's own."""

    passed: int = 0
    skipped: int = 0
    fatal: int = 0
    warnings: int = 0
    own_warnings: int = 0


def lint(
    root: ImageRoot,
    tell: Callable[[Lint, LintFinding], None],
    *,
    skip: Collection[str] = (),
    lints: Sequence[Lint] = LINTS,
    sink: Sink = null_sink,
) -> Counts:
    """Run the lints for a root.

    Args:
        root: The root.
        tell: Called with each finding as soon as there is one.
        skip: The names of lints that do not run. Unknown names have no effect.
        lints: All lints.
        sink: Told of the progress if checking takes long.

    Raises:
        LintFailed: a lint of upstream cannot run. The lints after it did not run.
    """
    counts = Counts()
    with doing("Linting"):
        for one, finding in _findings(root, lints, skip, counts, sink):
            fatal = one.kind is LintKind.FATAL
            counts.fatal += fatal
            counts.warnings += not fatal and not one.own
            counts.own_warnings += not fatal and one.own
            tell(one, finding)
    return counts


def require_passed(counts: Counts, *, fatal_warnings: bool) -> None:
    """Refuse an image whose checks failed; with ``fatal_warnings`` a warning is a failure, too.

    Raises:
        ChecksFailed: at least one check failed.
    """
    failures = counts.fatal
    if fatal_warnings:
        failures += counts.warnings + counts.own_warnings
    if failures:
        with doing("Linting"):
            raise ChecksFailed(f"Checks failed: {failures}")


def _findings(
    root: ImageRoot,
    lints: Sequence[Lint],
    skip: Collection[str],
    counts: Counts,
    sink: Sink,
) -> Iterator[tuple[Lint, LintFinding]]:
    """Yield the findings in the order of the lints, and count passed and skipped lints."""
    root_type = RootType.RUNNING if root.is_running else RootType.ALTERNATIVE
    looked: dict[str, LintFinding] | None = None
    wanted = [one for one in lints if one.name not in skip and one.root_type in (None, root_type)]
    counts.skipped = sum(not one.own for one in lints) - sum(not one.own for one in wanted)
    for one in wanted:
        if one.check is not None:
            finding = _checked(one, one.check, root)
        else:
            if looked is None:
                looked = _look(root, [other for other in wanted if other.look is not None], sink)
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


def _look(root: ImageRoot, lints: Sequence[Lint], sink: Sink) -> dict[str, LintFinding]:
    """Run all lints that check every name in one walk. Each ends with its first finding."""
    found: dict[str, LintFinding] = {}
    left = list(lints)
    try:
        with closing(visit(root.dir)) as walk:
            slow = _SlowWalk(sink)
            for visited in walk:
                slow.count(visited.path)
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


class _SlowWalk:
    """Tells of a walk that takes long, every now and then."""

    __slots__ = ("_next_s", "_number", "_sink")

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._number = 0
        self._next_s = time.monotonic() + _SILENT_S

    def count(self, path: str) -> None:
        """Count one name."""
        self._number += 1
        if self._number % _NAMES_A_LOOK == 0 and time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _SILENT_S
            where = printable(path.partition("/")[0])
            self._sink(Notice(f"Checked {self._number} names, now below /{where} …"))


def _cannot_run(one: Lint, exc: Exception) -> LintFailed:
    return LintFailed(f"Unexpected runtime error running lint {one.name}: {one_line(exc)}")
