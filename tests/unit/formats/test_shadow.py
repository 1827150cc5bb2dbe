from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from bootc.formats import shadow
from bootc.formats.shadow import account_names, without_orphans


def test_doctests() -> None:
    assert doctest.testmod(shadow).failed == 0


def test_lines() -> None:
    data = b"root:*:1::\n# x:y\n\n+nis::\n-y:z\nno colon\n:empty:\ngone:!:\nroot:again:\nbin:*:"
    kept = b"root:*:1::\n# x:y\n\n+nis::\n-y:z\nno colon\n:empty:\nbin:*:"
    assert without_orphans(data, {b"root", b"bin"}) == (kept, [b"gone", b"root"])
    assert account_names(data) == {b"root", b"gone", b"bin"}


@given(st.lists(st.sampled_from([b"a:x", b"b:y", b"a:z", b"#c:", b"", b"+d:", b"e", b"\xff:"])))
def test_what_is_left_is_a_part_in_order_and_final(lines: list[bytes]) -> None:
    data = b"\n".join(lines)
    kept, removed = without_orphans(data, {b"a"})
    names = [line.partition(b":")[0] for line in kept.split(b"\n") if line[:1] in b"ab" and line]
    assert names == [b"a"][: lines.count(b"a:x") + lines.count(b"a:z")]
    assert without_orphans(kept, {b"a"}) == (kept, [])
    assert account_names(data) == account_names(kept) | set(removed)


@given(st.binary(), st.sets(st.binary()))
def test_any_bytes(data: bytes, names: set[bytes]) -> None:
    kept, _ = without_orphans(data, names)
    assert account_names(kept) <= names
