"""Quoted names are what a shell reads as the name, and nothing that a terminal obeys."""

from __future__ import annotations

import doctest
import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.formats import shellquote
from bootc.formats.shellquote import double_quoted, shell_quoted

names = st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw)


def test_doctests() -> None:
    assert doctest.testmod(shellquote).failed == 0


@pytest.mark.parametrize(
    "name",
    ["", "foo", "/foo/bar9/../baz", "--a=/foo,/bar", "/foo:/bar", "_apt", "é", "a+b", "a@b]"],
)
def test_names_that_need_no_quotes(name: str) -> None:
    assert shell_quoted(name) == name


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        (" ", "' '"),
        ("/foo/!/bar&", "'/foo/!/bar&'"),
        ("/path/\"withquotes'", '"/path/\\"withquotes\'"'),
        ("it's $HOME", "'it'\"'\"'s $HOME'"),
        ("é+", "'é+'"),
        ("50%", "'50%'"),
        ("a\nb'", "$'a\\x0ab\\''"),
        ("\x1b[31m", "$'\\x1b[31m'"),
        (os.fsdecode(b"a\xffb"), "$'a\\xffb'"),
        ("a\u202eb", "$'a\\xe2\\x80\\xaeb'"),
    ],
)
def test_names_that_need_them(name: str, quoted: str) -> None:
    assert shell_quoted(name) == quoted


@given(st.lists(names, min_size=20, max_size=40))
@settings(max_examples=10, deadline=None)
def test_bash_reads_the_name(raw: list[bytes]) -> None:
    quoted = [shell_quoted(os.fsdecode(name)) for name in raw]
    assert all(text.isprintable() for text in quoted)
    script = f"printf '%s\\0' {' '.join(quoted)}"
    done = subprocess.run(["bash", "-c", script], check=True, stdout=subprocess.PIPE)
    assert done.stdout.split(b"\0")[:-1] == raw


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("plain é", '"plain é"'),
        ("a\"b\\'", '"a\\"b\\\\\\\'"'),
        ("\n\r\t\0\x1b", '"\\n\\r\\t\\0\\u{1b}"'),
        (os.fsdecode(b"\xc3(\xff"), '"\\xC3(\\xFF"'),
    ],
)
def test_double_quotes(name: str, quoted: str) -> None:
    assert double_quoted(name) == quoted


@given(names)
def test_double_quoted_is_one_line(raw: bytes) -> None:
    assert double_quoted(os.fsdecode(raw)).isprintable()
