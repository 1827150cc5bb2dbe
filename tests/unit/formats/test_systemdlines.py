from __future__ import annotations

import doctest
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootc.formats import systemdlines
from bootc.formats.systemdlines import tmpfiles_path, typed_names


def test_doctests() -> None:
    assert doctest.testmod(systemdlines).failed == 0


@pytest.mark.parametrize(
    ("line", "name"),
    [
        (b"z /dev/kvm          0666 - kvm -", "/dev/kvm"),
        (b"a+\t/var/lib/x  -  -  -  - default:group:tss:rwx", "/var/lib/x"),
        (b'd "/run/with spaces/foo" 0700 root root -', "/run/with spaces/foo"),
        (b"d '/run/\"x' -", '/run/"x'),
        (rb"d /spaces\x20\x20here/foo 0700", "/spaces  here/foo"),
        (rb"d /a\040b\tc\\d\u00e9\U0001F600", "/a b\tc\\dé😀"),
        (rb"d /\xc3\xa9", "/é"),
        (b"d /\xff", os.fsdecode(b"/\xff")),
        (b"  L+ /x -", "/x"),
        (b"d /x\r", "/x"),
    ],
)
def test_names(line: bytes, name: str) -> None:
    assert [found for _, found in typed_names(line)] == [name]


@pytest.mark.parametrize(
    "line",
    [
        b"d",
        b'd "/open',
        rb"d /a\x2",
        rb"d /a\xzz",
        rb"d /a\uD800",
        rb"d /a\U99999999",
        rb"d /a\000",
        b"d /a\\",
        b"# d /a",
        b"; d /a",
        b'"" /a',
    ],
)
def test_malformed_lines_are_passed_by(line: bytes) -> None:
    assert typed_names(line + b"\nd /b") == [("d", "/b")]


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    for kind, name in typed_names(data):
        assert kind
        assert name


@given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
def test_a_written_path_is_read_again(raw: bytes) -> None:
    path = f"/{os.fsdecode(raw)}"
    written = tmpfiles_path(path)
    assert written.isascii()
    assert written.isprintable()
    assert typed_names(f"d {written} 0755".encode()) == [("d", path)]
