from __future__ import annotations

import re

import pytest

from bootc.formats.pathregex import (
    MAX_DEPTH,
    MAX_PATTERN_BYTES,
    Anchor,
    Choice,
    Look,
    PatternError,
    Repeat,
    Run,
    Sequence,
    Set,
    Simulation,
    parse_pattern,
)

ALL = frozenset(range(256))


def of(text: bytes) -> Set:
    return Set(frozenset(text))


@pytest.mark.parametrize(
    ("text", "node"),
    [
        (b"", Sequence(())),
        (b"/usr", Run(b"/usr")),
        (rb"/a\.so\-\@", Run(b"/a.so-@")),
        (rb"\.\.*", Sequence((Run(b"."), Repeat(Run(b"."), 0, None)))),
        (b"ab?", Sequence((Run(b"a"), Repeat(Run(b"b"), 0, 1)))),
        (b"a+b", Sequence((Repeat(Run(b"a"), 1, None), Run(b"b")))),
        (b"a*?", Repeat(Run(b"a"), 0, None)),
        (b"a{2}", Repeat(Run(b"a"), 2, 2)),
        (b"a{2,}?", Repeat(Run(b"a"), 2, None)),
        (b"a{0,3}", Repeat(Run(b"a"), 0, 3)),
        (b"a*+", Repeat(Repeat(Run(b"a"), 0, None), 1, None)),
        (b"a|", Choice((Run(b"a"), Sequence(())))),
        (b"(a|b)c", Sequence((Choice((Run(b"a"), Run(b"b"))), Run(b"c")))),
        (b"(?:a)()", Sequence((Run(b"a"), Sequence(())))),
        (b"a]}", Run(b"a]}")),
        ("é?ü".encode(), Sequence((Repeat(Run("é".encode()), 0, 1), Run("ü".encode())))),
        (b".", Set(ALL - {0})),
        (b"[ab]", of(b"ab")),
        (b"[^ab]", Set(ALL - frozenset(b"ab"))),
        (b"[]a]", of(b"]a")),
        (b"[^]]", Set(ALL - frozenset(b"]"))),
        (b"[a-c.-]", of(b"abc.-")),
        (b"[-a]", of(b"-a")),
        (b"[a-c-e]", of(b"abc-e")),
        (rb"[\]\-\\^]", of(b"]-\\^")),
        (rb"[\x41-\x43\t]", of(b"ABC\t")),
        (b"[[:digit:]x]", of(b"0123456789x")),
        (b"[[:^ascii:]]", Set(frozenset(range(128, 256)))),
        (rb"\d", of(b"0123456789")),
        (rb"[\D]", Set(ALL - frozenset(b"0123456789"))),
        (rb"\s", of(b"\t\n\v\f\r ")),
        (rb"\x2f\n", Sequence((of(b"/"), of(b"\n")))),
        (b"^a$", Sequence((Anchor("^"), Run(b"a"), Anchor("$")))),
        (rb"\Aa\z\b\B", Sequence((*map(Anchor, "^"), Run(b"a"), *map(Anchor, "$bB")))),
        (b"(?!a)", Look(Run(b"a"), behind=False, negative=True)),
        (b"(?<=a)", Look(Run(b"a"), behind=True, negative=False)),
        # What only PCRE2 reads, it reads in its own way.
        (b"(?=a).", Sequence((Look(Run(b"a"), False, False), Set(ALL - {10})))),
        (b"a{x.", Sequence((Run(b"a"), Run(b"{"), Run(b"x"), Set(ALL - {10})))),
    ],
)
def test_syntax(text: bytes, node: object) -> None:
    parsed = parse_pattern(text)
    assert parsed.node == node
    assert parsed.regular == (not re.search(rb"\(\?<?[!=]|^\^|\\A", text))


@pytest.mark.parametrize(
    ("text", "message", "offset"),
    [
        (b"(a", "a ( without its )", 0),
        (b"a(?!b", "a ( without its )", 1),
        (b"a)b", "a ) without its (", 1),
        (b"*a", "nothing to repeat", 0),
        (b"a|+", "nothing to repeat", 2),
        (b"(?:*)", "nothing to repeat", 3),
        (b"ab\\", "not supported: a lone \\", 2),
        (rb"a\1", r"not supported: \1…", 1),
        (rb"\<a", r"not supported: \<a…", 0),
        (rb"\Z", r"not supported: \Z…", 0),
        (rb"\x{41}", r"not supported: \x{…", 0),
        (b"(?i)a", "not supported: (?i…", 0),
        (b"(?P<n>a)", "not supported: (?P…", 0),
        (b"(?>a)", "not supported: (?>…", 0),
        (b"(*ACCEPT)", "not supported: (*A…", 0),
        (b"a{,3}", "not supported: {,3…", 1),
        (b"a\xff", "not supported: \\xff…", 1),
        (b"a{1001}", "bad numbers of a repeat", 1),
        (b"a{1,99999999999999999999}", "bad numbers of a repeat", 1),
        (b"a{3,2}", "bad numbers of a repeat", 1),
        (b"a+{2}", "a repeat of a repeat", 2),
        (b"(?!b)a*+", "a repeat of a repeat", 7),
        (b"[", "not supported in a class: the end", 1),
        (b"[a", "not supported in a class: the end", 2),
        (b"[]", "not supported in a class: the end", 2),
        (b"[a[b]]", "not supported in a class: [b", 2),
        (b"[a&&b]", "not supported in a class: an operator", 2),
        (b"[a--b]", "not supported in a class: an operator", 2),
        ("[é]".encode(), "not supported in a class: é", 1),
        (b"[[:nope:]]", "no such class: [:nope:]", 1),
        (b"[b-a]", "bad range of characters", 2),
        (rb"[\w-z]", "bad range of characters", 3),
        (rb"[a-\d]", "bad range of characters", 2),
        (b"[a-[:digit:]]", "bad range of characters", 2),
        (b"(" * (MAX_DEPTH + 1), "groups nested too deep", MAX_DEPTH),
    ],
)
def test_refused(text: bytes, message: str, offset: int) -> None:
    with pytest.raises(PatternError) as caught:
        parse_pattern(text)
    assert caught.value.message == f"{message} at offset {offset} of the pattern"
    assert caught.value.offset == offset


def test_length_limit() -> None:
    assert parse_pattern(b"a" * MAX_PATTERN_BYTES).regular
    with pytest.raises(PatternError, match="a pattern of 4097 bytes"):
        parse_pattern(b"a" * (MAX_PATTERN_BYTES + 1))


@pytest.mark.parametrize(
    ("pattern", "text", "ends"),
    [
        (b"", b"ab", {0}),
        (b"ab|a", b"ab", {1, 2}),
        (b"a*", b"aab", {0, 1, 2}),
        (b"a{2,3}", b"aaaaa", {2, 3}),
        (b"(ab?){2}", b"abab", {3, 4}),
        (b"[^a]+", b"bca", {1, 2}),
        (b"/run/w-(?!lxc).*", b"/run/w-a", {7, 8}),
        (b"/run/w-(?!lxc).*", b"/run/w-lxc", set()),
        (b"a(?=b)", b"ab", {1}),
        (b"a(?=b)", b"ac", set()),
        (b".*(?<=/lib)", b"/lib/lib", {4, 8}),
        (b".*(?<!b)", b"abb", {0, 1}),
        (b"a$", b"a-", set()),
        (b"a$", b"a", {1}),
        (b"^a^", b"a", set()),
        (rb"a\b-\B", b"a--", {2}),
        (rb"a\b", b"ab", set()),
        (rb"a\B.", b"ab", {2}),
    ],
)
def test_simulation(pattern: bytes, text: bytes, ends: set[int]) -> None:
    assert Simulation(text).ends(parse_pattern(pattern).node) == ends


@pytest.mark.parametrize(
    "pattern",
    [
        b"(?!x)" + b"(" * 50 + b"a" + b")*" * 50 + b"b",
        b"(?!x)" + b"(?=(a|aa|aaa|a*)*)(.*(?<=a*))*" * 20 + b"b",
    ],
)
def test_patterns_that_take_for_ever_are_given_up(pattern: bytes) -> None:
    with pytest.raises(PatternError, match="takes too many steps to match"):
        Simulation(b"a" * 200).ends(parse_pattern(pattern).node)


def test_backtracking_would_take_for_ever() -> None:
    node = parse_pattern(b"(?!x)(a|aa)*(a*)*(a*)*(a*)*(a?){50}a{150}b").node
    assert Simulation(b"a" * 200).ends(node) == set()
