"""What is told, what is counted, and what ends everything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.cli.render.lint import counts_text, finding_text
from bootc.errors import Error, one_line
from bootc.fs.imageroot import ImageRoot
from bootc.fs.visit import Visited
from bootc.lint.model import Lint, LintFinding, LintKind, Listing, RootType
from bootc.lint.run import ChecksFailed, LintFailed, lint, require_passed
from support.descriptors import none_left_open


def passes(root: ImageRoot) -> LintFinding | None:
    return None


def finds(root: ImageRoot) -> LintFinding | None:
    return "Found it"


def fails(root: ImageRoot) -> LintFinding | None:
    raise Error("no such thing", hint="do it")


def cannot_read(root: ImageRoot) -> LintFinding | None:
    raise PermissionError(13, "Permission denied", "/x")


def bad(visited: Visited) -> LintFinding | None:
    return f"bad {visited.path}" if "bad" in visited.path else None


def cannot_look(visited: Visited) -> LintFinding | None:
    raise PermissionError(13, "Permission denied", visited.path)


FATAL, WARNING = LintKind.FATAL, LintKind.WARNING


class Outcome:
    def __init__(self, text: str, error: str | None) -> None:
        self.text = text
        self.error = error


def run(top: Path, *lints: Lint, skip: tuple[str, ...] = (), strict: bool = False) -> Outcome:
    written: list[str] = []
    try:
        with ImageRoot.open(os.fspath(top)) as root:
            counts = lint(
                root,
                lambda one, finding: written.append(finding_text(one, finding)),
                skip=skip,
                lints=lints,
            )
        written.append(counts_text(counts))
        require_passed(counts, fatal_warnings=strict)
    except (ChecksFailed, LintFailed) as exc:
        return Outcome("".join(written), one_line(exc))
    return Outcome("".join(written), None)


def test_all_passes(tmp_path: Path) -> None:
    done = run(tmp_path, Lint("a", FATAL, "", passes), Lint("b", WARNING, "", look=bad))
    assert done.text == "Checks passed: 2\n"
    assert done.error is None


def test_finds(tmp_path: Path) -> None:
    lints = (
        Lint("a", FATAL, "", finds),
        Lint("b", WARNING, "", finds),
        Lint("c", FATAL, "", finds),
    )
    done = run(tmp_path, *lints)
    assert done.text == (
        "Failed lint: a: Found it\nLint warning: b: Found it\nFailed lint: c: Found it\n"
        "Checks passed: 0\nWarnings: 1\n"
    )
    assert done.error == "Linting: Checks failed: 2"


def test_warnings_that_are_failures_or_not(tmp_path: Path) -> None:
    lints = (Lint("a", WARNING, "", finds), Lint("pybootc-b", WARNING, "", finds))
    done = run(tmp_path, *lints)
    assert done.error is None
    strict = run(tmp_path, *lints, strict=True)
    assert strict.text == done.text
    assert strict.error == "Linting: Checks failed: 2"


def test_ours_are_counted_apart(tmp_path: Path) -> None:
    lints = (
        Lint("a", WARNING, "", passes),
        Lint("pybootc-b", WARNING, "", finds),
        Lint("pybootc-c", WARNING, "", passes),
        Lint("pybootc-d", WARNING, "", finds),
    )
    done = run(tmp_path, *lints, skip=("pybootc-d",))
    assert done.text == (
        "Lint warning: pybootc-b: Found it\nChecks passed: 1\nWarnings of pybootc: 1\n"
    )


def test_what_is_skipped(tmp_path: Path) -> None:
    lints = (
        Lint("a", FATAL, "", finds),
        Lint("b", FATAL, "", finds, root_type=RootType.RUNNING),
        Lint("c", FATAL, "", passes, root_type=RootType.ALTERNATIVE),
    )
    done = run(tmp_path, *lints, skip=("a", "no-such-lint"))
    assert done.text == "Checks passed: 1\nChecks skipped: 2\n"
    assert done.error is None


def test_the_running_root() -> None:
    lints = (
        Lint("b", WARNING, "", finds, root_type=RootType.RUNNING),
        Lint("c", FATAL, "", finds, root_type=RootType.ALTERNATIVE),
    )
    done = run(Path("/"), *lints)
    assert done.text == (
        "Lint warning: b: Found it\nChecks passed: 0\nChecks skipped: 1\nWarnings: 1\n"
    )


def test_one_walk_ends_with_the_first_find(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/bad").mkdir()
    (tmp_path / "bad").mkdir()
    seen: list[str] = []

    def look(visited: Visited) -> LintFinding | None:
        seen.append(visited.path)
        return None

    done = run(tmp_path, Lint("b", FATAL, "", look=bad), Lint("c", FATAL, "", look=look))
    assert done.text == "Failed lint: b: bad a/bad\nChecks passed: 1\n"
    assert seen == ["a", "a/bad", "bad"]
    with none_left_open():
        run(tmp_path, Lint("b", FATAL, "", look=bad))


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Lint("b", FATAL, "", fails), "b: no such thing (hint: do it)"),
        (Lint("b", WARNING, "", cannot_read), "b: /x: Permission denied"),
        (Lint("b", WARNING, "", look=cannot_look), "b: f: Permission denied"),
    ],
)
def test_a_lint_that_cannot_run_ends_everything(tmp_path: Path, broken: Lint, reason: str) -> None:
    (tmp_path / "f").touch()
    done = run(tmp_path, Lint("a", WARNING, "", finds), broken, Lint("c", FATAL, "", finds))
    assert done.text == "Lint warning: a: Found it\n"
    assert done.error == f"Linting: Unexpected runtime error running lint {reason}"


def test_one_of_ours_that_cannot_run_is_a_warning(tmp_path: Path) -> None:
    done = run(tmp_path, Lint("pybootc-b", WARNING, "", cannot_read))
    assert done.text == (
        "Lint warning: pybootc-b: This cannot be checked: /x: Permission denied\n"
        "Checks passed: 0\nWarnings of pybootc: 1\n"
    )
    assert done.error is None


def test_lists_are_cut(tmp_path: Path) -> None:
    one = Lint("a", WARNING, "", lambda root: (Listing("Found", list("1234567")),))
    assert run(tmp_path, one).text == (
        "Lint warning: a: Found:\n  1\n  2\n  3\n  4\n  5\n  ...and 2 more\n\n"
        "Checks passed: 0\nWarnings: 1\n"
    )
