from __future__ import annotations

import pytest

from bootc.formats import automaton
from bootc.formats.automaton import Automaton
from bootc.formats.pathregex import MAX_DEPTH, PatternError, parse_pattern


def machine(*patterns: bytes) -> Automaton:
    made = Automaton()
    for pattern in patterns:
        made.add(parse_pattern(pattern).node)
    return made


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        (b"", [b""], [b"a"]),
        (b"/usr", [b"/usr"], [b"/us", b"/usr/", b"", b"/usR"]),
        (b"/usr(/.*)?", [b"/usr", b"/usr/", b"/usr/bin"], [b"/usrx"]),
        (b"a|b|", [b"a", b"b", b""], [b"ab"]),
        (b"(a|bc)*d", [b"d", b"ad", b"bcad"], [b"bd", b"a"]),
        (b"a+", [b"a", b"aaa"], [b"", b"ab"]),
        (b"(a?b?)+", [b"", b"a", b"ab", b"ba", b"bb"], [b"c"]),
        (b"(a{2}){2}", [b"aaaa"], [b"aa", b"aaa", b"aaaaa"]),
        (b"a{0}b", [b"b"], [b"ab"]),
        (b"a{0,}", [b"", b"a", b"aa"], [b"b"]),
        (b"a{2,}", [b"aa", b"aaa"], [b"a"]),
        (b"a{1,3}", [b"a", b"aa", b"aaa"], [b"", b"aaaa"]),
        (b"(ab|a){2}", [b"aba", b"abab", b"aa", b"aab"], [b"ab", b"a"]),
        (b"(a*)*", [b"", b"aaa"], [b"b"]),
        (b"a*+", [b"", b"aa"], [b"b"]),
        (b".", [b"a", b"\n", b"\xff"], [b"\0", b""]),
        ("é+".encode(), ["é".encode(), "éé".encode()], [b"\xc3", b"\xc3\xa9\xa9"]),
        (b"(a|b|c)?[d-f]", [b"d", b"af"], [b"a", b"ag"]),
    ],
)
def test_one_pattern(pattern: bytes, matching: list[bytes], others: list[bytes]) -> None:
    made = machine(pattern)
    for _ in range(2):  # the second time by the states that the first one made
        assert {text: made.matches(text) for text in matching} == dict.fromkeys(matching, (0,))
        assert {text: made.matches(text) for text in others} == dict.fromkeys(others, ())


def test_many_patterns() -> None:
    made = machine(b"/.*", b"/usr(/.*)?", b"/usr/bin/.*", b"/usr/bin/ls", b"/var", b"")
    assert made.matches(b"/usr/bin/ls") == (3, 2, 1, 0)
    assert made.matches(b"/usr/bin") == (1, 0)
    assert made.matches(b"/var") == (4, 0)
    assert made.matches(b"") == (5,)
    assert machine().matches(b"x") == ()


def test_adding_after_matching() -> None:
    made = machine(b"a")
    assert made.matches(b"a") == (0,)
    made.add(parse_pattern(b"[a]").node)
    assert made.matches(b"a") == (1, 0)


def test_assertions_are_a_bug_of_the_caller() -> None:
    with pytest.raises(ValueError, match="an assertion"):
        machine(b"^a")


def test_forgetting_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [b"/%d/%d" % (i, i * i) for i in range(200)]
    patterns = (b"/[0-9]*1/.*", b"/.*/[0-4]+", b"/19(/.*)?")
    made = machine(*patterns)
    expected = [made.matches(text) for text in texts]
    assert len({*expected}) > 4
    monkeypatch.setattr(automaton, "_MAX_KEPT", 100)
    small = machine(*patterns)
    assert [small.matches(text) for text in texts] == expected
    assert small._kept < 200


@pytest.mark.parametrize(
    "pattern",
    [
        b"((((a{1000}){1000}){1000}){1000}){1000}",
        b"((((){1000}){1000}){1000}){1000}",
        b"(" + b"a?" * 2040 + b")*",
        b"(" + b"|".join([b"a"] * 2000) + b"){100}",
    ],
)
def test_patterns_that_would_fill_the_memory(pattern: bytes) -> None:
    with pytest.raises(PatternError, match="the pattern is too large"):
        machine(b"a", pattern)


def test_policies_that_would_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automaton, "_MAX_SIZE", 5000)
    with pytest.raises(PatternError, match="all patterns together are too large"):
        machine(*[b"/a.*b"] * 1000)


def test_deep_groups() -> None:
    pattern = b"(" * MAX_DEPTH + b"a" + b")*" * MAX_DEPTH
    assert machine(pattern).matches(b"aaa") == (0,)


def test_nothing_is_walked_twice() -> None:
    # Backtracking would take 2**40 steps for the first and a million for the second.
    made = machine(b"(a|a)*" * 4 + b"b", b".*.*.*.*.*x", b"(a?){60}a{60}")
    assert made.matches(b"a" * 60) == (2,)
    assert made.matches(b"a" * 2000) == ()
