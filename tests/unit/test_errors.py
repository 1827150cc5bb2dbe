from __future__ import annotations

import doctest

import pytest

import bootc.errors
from bootc.errors import Error, doing, one_line


def test_notes_are_printed_outermost_first() -> None:
    with pytest.raises(Error) as caught, doing("Installing"), doing("Reading\nmeta.json"):
        raise Error("bad", hint="mend it")
    assert one_line(caught.value) == "Installing: Reading\\nmeta.json: bad (hint: mend it)"


def test_an_exception_without_text_is_named() -> None:
    assert one_line(ValueError()) == "ValueError"


def test_doctests() -> None:
    assert doctest.testmod(bootc.errors).failed == 0
