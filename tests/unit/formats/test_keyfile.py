from __future__ import annotations

import doctest

import pytest

from bootc.formats import keyfile
from bootc.formats.keyfile import KeyfileError, parse_keyfile


def test_doctests() -> None:
    assert doctest.testmod(keyfile).failed == 0


def test_what_counts() -> None:
    data = b"# a\n; b\n\n[x]\na=1\n a = 2 = 3 \n[ y ]\na=\n"
    assert parse_keyfile(data) == {("x", "a"): "2 = 3", ("y", "a"): ""}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"a=1", "line 1 is no key of a section: 'a=1'"),
        (b"[x]\n\nnonsense\x1b", "line 3 is no key of a section: 'nonsense\\x1b'"),
        (b"[x]\n=1", "line 2 is no key of a section: '=1'"),
        (b"[x]\n\xff", "is not UTF-8 at offset 4"),
    ],
)
def test_what_is_none(data: bytes, message: str) -> None:
    with pytest.raises(KeyfileError) as caught:
        parse_keyfile(data)
    assert caught.value.message == message
