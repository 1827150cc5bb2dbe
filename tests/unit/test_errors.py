from __future__ import annotations

import doctest
import errno

import pytest

import bootc.errors
from bootc.errors import Error, doing, one_line


def test_notes_are_printed_outermost_first() -> None:
    with pytest.raises(Error) as caught, doing("Installing"), doing("Reading\nmeta.json"):
        raise Error("bad", hint="mend it")
    assert one_line(caught.value) == "Installing: Reading\\nmeta.json: bad (hint: mend it)"


def test_an_exception_without_text_is_named() -> None:
    assert one_line(ValueError()) == "ValueError"


@pytest.mark.parametrize("name", ["d/" * 40_000, "d d/" * 20_000, b"\xff/" * 40_000])
def test_a_path_of_any_length_leaves_a_line_that_can_be_read(name: str | bytes) -> None:
    shown = name if isinstance(name, str) else name.decode("utf-8", "surrogateescape")
    with pytest.raises(OSError, match="too long") as caught, doing(f"Reading {shown}"):
        raise OSError(errno.ENAMETOOLONG, "File name too long", name)
    line = one_line(caught.value)
    assert line.startswith("Reading ")
    assert line.endswith("…: File name too long")
    assert len(line) < 12_000
    with pytest.raises(Error) as refused:
        raise Error(f"{shown} is too deep", hint="remove it")
    assert one_line(refused.value).endswith(" (hint: remove it)")
    assert len(one_line(refused.value)) < 12_000


def test_doctests() -> None:
    assert doctest.testmod(bootc.errors).failed == 0
