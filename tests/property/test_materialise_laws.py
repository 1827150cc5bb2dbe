"""What is written into a directory is what is read from it."""

from __future__ import annotations

from hypothesis import given, settings

from bootc.formats.tree import Directory
from support.writable import check_written_and_read_again, trees


@settings(deadline=None, max_examples=60)
@given(tree=trees(root=False))
def test_written_and_read_again(tree: Directory) -> None:
    check_written_and_read_again(tree)
