from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootc.formats.osrelease import parse_os_release


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (b"ID=fedora", {"ID": "fedora"}),
        (b'NAME="Fedora Linux"', {"NAME": "Fedora Linux"}),
        (b"NAME='a \"b\" \\c'", {"NAME": 'a "b" \\c'}),
        (rb'NAME="a \"b\" \$ \\ c"', {"NAME": 'a "b" $ \\ c'}),
        (b"NAME=a'b'\"c\"", {"NAME": "abc"}),
        (b"  ID=x  \r", {"ID": "x"}),
        (b"# ID=x", {}),
        (b"  #ID=x", {}),
        (b"no assignment", {}),
        (b'NAME="open', {}),
        (b"NAME='open", {}),
        (b'NAME="open\\', {}),
        (b'NAME="open\\"', {}),
        (b"ID=", {"ID": ""}),
        (b"A=b=c", {"A": "b=c"}),
        (rb"NAME=a\ b", {"NAME": r"a\ b"}),
        (b"NAME=\"a\"' b 'c", {"NAME": "a b c"}),
        (b'NAME="it\'s"', {"NAME": "it's"}),
        (b"NAME=a b", {"NAME": "a b"}),
        (b"ID=a\r\nNAME=b\r\n", {"ID": "a", "NAME": "b"}),
        (b"ID=a\nID=b", {"ID": "b"}),
        (b'ID=a\nID="b', {}),
        (b"ID=\xff", {"ID": "\ufffd"}),
    ],
)
def test_assignments(line: bytes, fields: dict[str, str]) -> None:
    assert parse_os_release(line).fields == fields


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"PRETTY_NAME=p\nNAME=n\nID=i\nVERSION_ID=1\nVERSION=2", ("i", "p", "1", "p 1")),
        (b"NAME=n\nID=i\nVERSION=2", ("i", "n", "2", "n 2")),
        (b"ID=i\nPRETTY_NAME=\nVERSION_ID=", ("i", "i", None, "i")),
        (b"VERSION_ID=1", (None, None, "1", None)),
        (b"", (None, None, None, None)),
        (
            b"PRETTY_NAME='a\roptions evil'\nID=i\x1b[2J\nVERSION_ID=1\xe2\x80\xae",
            ("i [2J", "a options evil", "1", "a options evil 1"),
        ),
    ],
)
def test_what_menus_use(text: bytes, expected: tuple[str | None, ...]) -> None:
    release = parse_os_release(text)
    assert (release.id, release.title, release.version, release.boot_label) == expected


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"a\roptions init=/bin/sh", "a options init=/bin/sh"),
        (b"a\x1b[2Jb\x07", "a [2Jb"),
        (b"\0a\x7f", "a"),
        (b"\r\x0b", None),
        ("a\u202eb\u2028c\u0085d\u00a0e".encode(), "a b c d e"),
        ("é 漢".encode(), "é 漢"),
        (b"x" * 10_000, "x" * 512),
    ],
)
def test_values_are_one_line_of_printable_characters(value: bytes, shown: str | None) -> None:
    for name in (b"ID", b"VERSION_ID", b"PRETTY_NAME"):
        release = parse_os_release(name + b'="' + value + b'"')
        assert (release.id or release.version or release.title) == shown
    label = parse_os_release(b'NAME="' + value + b'"\nVERSION="' + value + b'"').boot_label
    assert label == (None if shown is None else f"{shown} {shown}")


@given(st.binary(max_size=200))
def test_any_bytes_parse(data: bytes) -> None:
    parse_os_release(data)
    release = parse_os_release(b'ID="' + data + b'"\nVERSION="' + data + b'"')
    for value in (release.id, release.title, release.version, release.boot_label):
        assert value is None or (value.isprintable() and value == value.strip() != "")
