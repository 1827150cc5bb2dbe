from __future__ import annotations

from bootc.lint.model import Listing, lists


def test_lists_without_items_are_left_out() -> None:
    a, c = Listing("A", ["1"]), Listing("C", ["2"])
    assert lists(a, Listing("B", []), c) == (a, c)


def test_nothing() -> None:
    assert lists(Listing("A", [])) is None
