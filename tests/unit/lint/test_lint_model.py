from __future__ import annotations

from bootc.lint.model import Listing, lists, render


def test_a_sentence() -> None:
    assert render("Missing /sysroot") == "Missing /sysroot"


def test_lists() -> None:
    finding = lists(Listing("A", ["1", "2"]), Listing("B", []), Listing("C", list("abcdefg")))
    assert finding is not None
    assert render(finding) == "A:\n  1\n  2\nC:\n  a\n  b\n  c\n  d\n  e\n  ...and 2 more\n"
    assert render(finding, None).endswith("  e\n  f\n  g\n")
    assert render(finding, 2).startswith("A:\n  1\n  2\nC:\n  a\n  b\n  ...and 5 more\n")


def test_nothing() -> None:
    assert lists(Listing("A", [])) is None
