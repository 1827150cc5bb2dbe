"""What others wrote cannot act on a terminal, and what it was can be told."""

from __future__ import annotations

import ast
import doctest
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bootc.printable
from bootc.errors import Error, doing, one_line
from bootc.printable import ascii_escaped, listed, printable, printable_lines, quoted, shown

#: Characters of every kind that a terminal, a log or an encoder takes for something else.
ODD = st.text(
    st.one_of(
        st.characters(),
        st.characters(categories=("Cc", "Cf", "Zl", "Zp", "Zs", "Cs", "Mn")),
        st.sampled_from('\x1b\x07\r\n\t\x7f\x85\x9b\u2028\u202e\u2066\ufeff\udcff"\\[]'),
    )
)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"a b", "a b"),
        ("中…".encode(), "中…"),
        (b"\x1b]0;x\x07", r"\x1b]0;x\x07"),
        (b"a\r\n\tb\x7f", r"a\r\n\tb\x7f"),
        (b"\xff\xc3", r"\xff\xc3"),
        ("\x9b1m\u202e\u2028\ufeff\U000e0001".encode(), r"\u009b1m\u202e\u2028\ufeff\U000e0001"),
        (rb"\x1b", r"\x1b"),
    ],
)
def test_one_line_of_anything(raw: bytes, shown: str) -> None:
    assert printable(raw) == shown
    assert printable(raw.decode("utf-8", "surrogateescape")) == shown


def test_long_text_is_cut_before_it_is_decoded() -> None:
    assert printable("x" * 300, 200) == "x" * 200 + "…"
    assert printable("中".encode() * 2, 4) == "中\\xe4…"
    assert printable("中中", 2) == "中中"


@given(ODD)
def test_the_edges_change_nothing_that_was_escaped_before(text: str) -> None:
    once = printable(text)
    assert once.isprintable()
    assert printable(once) == once == printable_lines(once)


@given(ODD)
def test_lines_stay_lines(text: str) -> None:
    assert printable_lines(text).split("\n") == [printable(line) for line in text.split("\n")]


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        (b"a", 1, "'a'"),
        (b"ab", 1, "'a\u2026' (2 bytes)"),
        ("\u00e9\u00e9", 1, "'\u00e9\u2026' (2 characters)"),
        (b"\xff\x1b\n", 300, "'\\xff\\x1b\\n'"),
    ],
)
def test_a_shown_text_is_in_quotes_and_bounded(text: str | bytes, most: int, expected: str) -> None:
    assert shown(text, most) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"ssh/sshd_config", "ssh/sshd_config"),
        (b'it\'s "x"', 'it\'s \\"x\\"'),
        (b"back\\slash", "back\\\\slash"),
        (b"tab\tline\nreturn\rnul\0", "tab\\tline\\nreturn\\rnul\\0"),
        (b"\x1b[31m", "\\u{1b}[31m"),
        (b"\x7f", "\\u{7f}"),
        ("café 日本".encode(), "café 日本"),
        (b"caf\xe9", "caf\\xE9"),
        ("e\u0301".encode(), "e\\u{301}"),
        ("\u202e".encode(), "\\u{202e}"),
    ],
)
def test_paths_are_quoted(path: bytes, expected: str) -> None:
    assert quoted(path) == expected


@given(st.binary())
def test_a_quoted_path_can_be_undone(path: bytes) -> None:
    text = quoted(path)
    assert text.isprintable()
    undone = bytearray()
    while text:
        if text[0] != "\\":
            undone += text[0].encode()
            text = text[1:]
        elif text[1] == "x":
            undone.append(int(text[2:4], 16))
            text = text[4:]
        elif text[1] == "u":
            digits, _, text = text[3:].partition("}")
            undone += chr(int(digits, 16)).encode()
        else:
            undone += ast.literal_eval(f"b'{text[:2]}'")
            text = text[2:]
    assert bytes(undone) == path


@given(st.recursive(ODD, lambda inner: st.lists(inner) | st.dictionaries(ODD, inner)))
def test_escapes_in_json_keep_every_value(value: object) -> None:
    text = ascii_escaped(json.dumps(value, indent=1, ensure_ascii=False))
    assert text.replace("\n", "").isprintable()
    assert json.loads(text) == value


def test_a_long_list_ends_in_a_number() -> None:
    assert listed([]) == ""
    assert listed(str(i) for i in range(10)) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert listed(["a\x1b"] * 15_000).endswith("a\\x1b and 14990 more")
    assert len(listed(["a" * 1000])) == 129


@given(ODD, ODD, ODD, st.binary())
def test_an_error_is_one_line_whatever_it_names(a: str, b: str, c: str, name: bytes) -> None:
    for exc in (Error(a, hint=b), OSError(5, a, name), OSError(5, a, c), ValueError(c)):
        with pytest.raises(type(exc)) as caught, doing(c):
            raise exc
        assert one_line(caught.value).isprintable()


def test_doctests() -> None:
    assert doctest.testmod(bootc.printable).failed == 0
