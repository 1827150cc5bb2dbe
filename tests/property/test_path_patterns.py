"""Any pattern and any path: the automaton, the simulation and Python's engine agree."""

from __future__ import annotations

import contextlib
import re

from hypothesis import given
from hypothesis import strategies as st

from bootc.formats.automaton import Automaton
from bootc.formats.filecontexts import (
    FileContexts,
    FileContextsError,
    FileType,
    parse_file_contexts,
    parse_subs,
)
from bootc.formats.pathregex import PatternError, Simulation, parse_pattern

LOOKS = ["(?=%s)", "(?!%s)", "(?<=[ab]%s)", "(?<!a)%s"]
ATOMS = ["a", "b", "/", "ab", r"\.", "[ab]", "[^a]", "[a-c/]", "[[:alpha:]]", r"\w", "."]


def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    repeats = st.sampled_from(["*", "+", "?", "{2}", "{1,2}", "{0,1}", "{1,}", "*?"])
    return st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map("(%s|%s)".__mod__),
        st.tuples(inner, repeats).map("(?:%s)%s".__mod__),
    )


patterns = st.recursive(st.sampled_from(ATOMS), grow, max_leaves=8)
texts = st.text("ab/.\n", max_size=10).map(str.encode)


@given(st.lists(patterns, min_size=1, max_size=5), st.lists(texts, min_size=1, max_size=5))
def test_all_at_once_is_each_for_itself(some: list[str], paths: list[bytes]) -> None:
    machine = Automaton()
    for pattern in some:
        machine.add(parse_pattern(pattern.encode()).node)
    for path in paths:
        expected = [i for i, pattern in enumerate(some) if python(pattern).fullmatch(path)]
        assert machine.matches(path) == tuple(reversed(expected))


@given(st.tuples(patterns, patterns, patterns), st.sampled_from(["", *LOOKS]), texts)
def test_simulation(parts: tuple[str, str, str], look: str, text: bytes) -> None:
    before, inside, after = parts
    # A look-behind of any length is beyond Python.
    middle = look % ("" if "<" in look else inside) if look else inside
    pattern = before + middle + after
    ends = Simulation(text).ends(parse_pattern(pattern.encode()).node)
    if look:
        # What is ahead of a prefix is not its end: only the whole text can be compared.
        assert (len(text) in ends) == bool(python(pattern, rb"[^\n]").fullmatch(text))
    else:
        compiled = python(pattern)
        assert ends == {n for n in range(len(text) + 1) if compiled.fullmatch(text[:n])}


def python(pattern: str, dot: bytes = rb"[^\0]") -> re.Pattern[bytes]:
    translated = re.sub(rb"(?<!\\)\.", lambda _: dot, pattern.encode())
    return re.compile(translated.replace(b"[[:alpha:]]", b"[a-zA-Z]"))


@given(st.one_of(st.binary(max_size=40), st.text("ab()[]{}|*+?^$.\\:!<=-0,", max_size=20)))
def test_any_bytes_are_a_pattern_or_an_error(raw: bytes | str) -> None:
    text = raw.encode() if isinstance(raw, str) else raw
    try:
        pattern = parse_pattern(text)
        if pattern.regular:
            Automaton().add(pattern.node)
        Simulation(b"ab/a").ends(pattern.node)
    except PatternError:
        return


@given(st.one_of(st.binary(max_size=80), st.text("/ab.* -dlc<>#\n", max_size=80)))
def test_any_bytes_are_a_policy_or_an_error(raw: bytes | str) -> None:
    data = raw.encode() if isinstance(raw, str) else raw
    with contextlib.suppress(FileContextsError):
        parse_subs(data, "subs")
    try:
        rules = parse_file_contexts(data, "fc")
        policy = FileContexts(rules, {})
    except FileContextsError:
        return
    label = policy.lookup(b"/a", FileType.REGULAR)
    assert label is None or label in {rule.context for rule in rules}
