from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from bootc.formats import fstab
from bootc.formats.fstab import parse_fstab


def test_doctests() -> None:
    assert doctest.testmod(fstab).failed == 0


def test_lines() -> None:
    data = b"\n# UUID=1 / ext4\n#x /y\nonly-one\n/dev/a\t/b\\134040c\n"
    assert parse_fstab(data) == [("/dev/a", "/b\\040c")]


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    parse_fstab(data)
