from __future__ import annotations

import pytest

from bootc.formats import fat


@pytest.mark.parametrize(
    "name", ["a", ".a", "PK.auth", "é漢", "a b", "x" * 255, "\U0001f600" * 127]
)
def test_names(name: str) -> None:
    assert fat.is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a.",
        "a ",
        " a",
        "a/b",
        "a:b",
        "a\\b",
        "a*",
        "a?",
        'a"',
        "a<",
        "a>",
        "a|",
        "a\nb",
        "a\0",
        "a\x7f",
        "\udcff",
        "x" * 256,
        "\U0001f600" * 128,
    ],
)
def test_what_is_not_a_name(name: str) -> None:
    assert not fat.is_name(name)


def test_names_that_differ_in_case_only() -> None:
    assert fat.same_names(["a", "b", "A"]) == ("a", "A")
    assert fat.same_names(["É", "é"]) == ("É", "é")
    assert fat.same_names(["a", "b", "a"]) is None
