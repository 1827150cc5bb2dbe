"""A dumpfile tells everything a tree holds, so it decides what a difference is."""

from __future__ import annotations

from hypothesis import given, settings

from bootc.formats.dumpfile import parse_dumpfile
from bootc.formats.tree import Directory
from bootc.formats.treediff import compare
from support.trees import text_of, trees


@settings(max_examples=60, deadline=None)
@given(trees(), trees())
def test_trees_differ_when_their_dumpfiles_do(a: Directory, b: Directory) -> None:
    assert (not list(compare(a, b))) == (text_of(a) == text_of(b))


@settings(max_examples=60, deadline=None)
@given(trees())
def test_a_tree_equals_its_copy(tree: Directory) -> None:
    assert list(compare(tree, parse_dumpfile(text_of(tree)))) == []


@settings(max_examples=60, deadline=None)
@given(trees(), trees())
def test_both_directions_tell_the_same(a: Directory, b: Directory) -> None:
    there = [(d.path, d.aspect, d.name, d.a, d.b) for d in compare(a, b)]
    back = [(d.path, d.aspect, d.name, d.b, d.a) for d in compare(b, a)]
    assert there == back
