from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootc.formats import fstab
from bootc.formats.fstab import parse_fstab, with_read_only_root


def test_doctests() -> None:
    assert doctest.testmod(fstab).failed == 0


def test_lines() -> None:
    data = b"\n# UUID=1 / ext4\n#x /y\nonly-one\n/dev/a\t/b\\134040c\n"
    assert parse_fstab(data) == [("/dev/a", "/b\\040c")]


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    parse_fstab(data)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("UUID=1 / xfs defaults 0 0\n", "UUID=1 / xfs ro 0 0\n"),
        ("UUID=1\t/\text4\trw,noatime\t0 1\n", "UUID=1\t/\text4\tnoatime,ro\t0 1\n"),
        ("  UUID=1 / ext4 errors=remount-ro", "  UUID=1 / ext4 errors=remount-ro,ro"),
        ("UUID=1 / xfs ro 0 0\n", None),
        ("UUID=1 / xfs x,ro,y 0 0\n", None),
        ("UUID=1 /var xfs rw 0 0\n", None),
        ("# UUID=1 / xfs rw 0 0\n", None),
        ("UUID=1 /\n", None),
        ("UUID=1 / xfs\n", None),
        ("\n", None),
    ],
)
def test_a_root_becomes_read_only(line: str, expected: str | None) -> None:
    around = "/dev/a /a xfs rw 0 0\n"
    after = with_read_only_root(f"{around}{line}".encode(), b"why").decode()
    assert after == around + (line if expected is None else f"# why\n{expected}")
    assert with_read_only_root(after.encode(), b"why").decode() == after


@given(st.binary())
def test_any_bytes_become_read_only_at_once(data: bytes) -> None:
    once = with_read_only_root(data, b"why")
    assert with_read_only_root(once, b"why") == once
    assert [path for _, path in parse_fstab(once)] == [path for _, path in parse_fstab(data)]
