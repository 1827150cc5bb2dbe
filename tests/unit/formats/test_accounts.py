from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from bootc.formats import accounts
from bootc.formats.accounts import parse_accounts


def test_doctests() -> None:
    assert doctest.testmod(accounts).failed == 0


def test_lines() -> None:
    wrong = b"#x:x:1:\n+nis::9:\n-y:x:2:\nno\nbad:x:y:\nbig:x:99999999999:\n"
    data = b"root:x:0:\n\n" + wrong + b" a:x:7\na:x:8:\n"
    assert parse_accounts(data) == {"root": 0, "a": 7}


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    parse_accounts(data)
