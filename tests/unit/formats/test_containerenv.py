from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootc.formats import containerenv
from bootc.formats.containerenv import parse_containerenv


def test_doctests() -> None:
    assert doctest.testmod(containerenv).failed == 0


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b"", {}),
        (b'imageid="ab"\nname="a \\"b\\""\n', {"imageid": "ab", "name": 'a "b"'}),
        (b'a="open\nb=1\n=2\nnonsense\nc="x"y\n', {"b": "1"}),
        (b"a=\xff", {"a": "\ufffd"}),
    ],
)
def test_lines(data: bytes, values: dict[str, str]) -> None:
    assert parse_containerenv(data) == values


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    for key in parse_containerenv(data):
        assert key
