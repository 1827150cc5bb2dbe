from __future__ import annotations

from bootc.cli.render.lint import counts_text, finding_text, lint_text
from bootc.lint.model import Lint, LintKind, Listing, RootType, lists
from bootc.lint.run import Counts

FATAL = Lint("a", LintKind.FATAL, 'Looks at "x"')
WARNING = Lint("b", LintKind.WARNING, "é", root_type=RootType.RUNNING)


def test_a_sentence() -> None:
    assert finding_text(FATAL, "Missing /sysroot") == "Failed lint: a: Missing /sysroot\n"


def test_lists() -> None:
    finding = lists(Listing("A", ["1", "2"]), Listing("B", []), Listing("C", list("abcdefg")))
    assert finding is not None
    assert finding_text(WARNING, finding) == (
        "Lint warning: b: A:\n  1\n  2\nC:\n  a\n  b\n  c\n  d\n  e\n  ...and 2 more\n\n"
    )
    assert finding_text(WARNING, finding, None).endswith("  e\n  f\n  g\n\n")
    assert finding_text(WARNING, finding, 2).startswith(
        "Lint warning: b: A:\n  1\n  2\nC:\n  a\n  b\n  ...and 5 more\n"
    )


def test_counts() -> None:
    assert counts_text(Counts()) == "Checks passed: 0\n"
    assert counts_text(Counts(1, 2, 3, 4, 5)) == (
        "Checks passed: 1\nChecks skipped: 2\nWarnings: 4\nWarnings of pybootc: 5\n"
    )


def test_a_lint_in_the_list() -> None:
    assert lint_text(FATAL) == ('- name: a\n  type: fatal\n  description: "Looks at \\"x\\""\n')
    assert lint_text(WARNING) == (
        '- name: b\n  type: warning\n  description: "é"\n  root-type: Running\n'
    )
