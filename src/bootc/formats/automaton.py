"""Matches many patterns against one text at once.

Every byte that a pattern can match is a position (Glushkov's construction). A state is a set of
positions. A set is made when a text first reaches it, and kept for later texts.

Promises: no backtracking for any pattern. A byte of a text costs one look-up if an earlier text
took the same way, and otherwise at most a visit of all positions. Memory
is bounded: patterns that need too many positions are refused, and the sets are dropped
when there are too many.

>>> from bootc.formats.pathregex import parse_pattern
>>> both = Automaton()
>>> both.add(parse_pattern(b"/a.*").node)
>>> both.add(parse_pattern(b"/(ab)+").node)
>>> both.matches(b"/abab"), both.matches(b"/ac"), both.matches(b"/b")
((1, 0), (0,), ())

Method: V. M. Glushkov, "The abstract theory of automata" (1961); the sets are the
states of a deterministic automaton that is built lazily.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from bootc.formats.pathregex import Choice, Node, PatternError, Repeat, Run, Sequence, Set

#: Positions and ways between them, of one pattern and of all together. Debian's policy of 5,845
#: patterns has 160,000, the largest of them 90.
_MAX_PATTERN_SIZE = 1 << 16
_MAX_SIZE = 1 << 21
#: The size of the sets that are kept, counted in their positions and the ways between them.
_MAX_KEPT = 1 << 20
_STATE_SIZE = 16


class _Part(NamedTuple):
    """Positions of a part of a pattern: where it can begin and end, and whether it can be empty."""

    first: list[int]
    last: list[int]
    optional: bool


class _State:
    """A set of positions, each waiting for its byte."""

    __slots__ = ("by_byte", "by_set", "matched", "next")

    def __init__(self) -> None:
        self.next: dict[int, _State] = {}
        #: Positions that wait for one certain byte, and those that wait for one of several.
        self.by_byte: dict[int, list[int]] = {}
        self.by_set: list[tuple[frozenset[int], int]] = []
        #: The patterns that match the text up to here, the last pattern first.
        self.matched: tuple[int, ...] = ()


class Automaton:
    """Finds the patterns that match a whole text."""

    def __init__(self) -> None:
        #: The bytes of each position. A negative position ``~n``: pattern n has matched.
        self._symbols: list[int | frozenset[int]] = []
        #: The positions after each; None stands for the next one alone.
        self._after: list[list[int] | None] = []
        self._size = self._limit = 0
        self._count = 0
        self._begin: list[int] = []
        self._start: _State | None = None
        self._states: dict[frozenset[int], _State] = {}
        self._kept = 0

    def add(self, node: Node) -> None:
        """Add a pattern that holds no assertion; the first has the index 0.

        Raises:
            PatternError: it needs too much memory, or all patterns do together.
        """
        self._limit = min(self._size + _MAX_PATTERN_SIZE, _MAX_SIZE)
        part = self._add(node)
        self._join(part.last, [~self._count])
        self._begin += part.first
        if part.optional:
            self._begin.append(~self._count)
        self._count += 1
        self._forget()

    def matches(self, text: bytes) -> tuple[int, ...]:
        """Return the indexes of the patterns that match, the highest first."""
        state = self._start
        if state is None:
            state = self._start = self._state(frozenset(self._begin))
        for byte in text:
            state = state.next.get(byte) or self._step(state, byte)
        return state.matched

    def _forget(self) -> None:
        self._start = None
        self._states.clear()
        self._kept = 0

    def _step(self, state: _State, byte: int) -> _State:
        """Find where ``byte`` leads to for the first time."""
        taken = state.by_byte.get(byte, [])
        taken = [*taken, *(at for symbols, at in state.by_set if byte in symbols)]
        reached: set[int] = set()
        for at in taken:
            after = self._after[at]
            if after is None:
                reached.add(at + 1)
            else:
                reached.update(after)
        self._kept += 1
        following = state.next[byte] = self._state(frozenset(reached))
        return following

    def _state(self, positions: frozenset[int]) -> _State:
        known = self._states.get(positions)
        if known is not None:
            return known
        if self._kept > _MAX_KEPT:
            # Common prefixes of texts soon bring the useful sets back.
            self._forget()
        self._kept += len(positions) + _STATE_SIZE
        state = self._states[positions] = _State()
        symbols = self._symbols
        for at in positions:
            if at < 0:
                continue
            symbol = symbols[at]
            if isinstance(symbol, int):
                state.by_byte.setdefault(symbol, []).append(at)
            else:
                state.by_set.append((symbol, at))
        state.matched = tuple(sorted((~at for at in positions if at < 0), reverse=True))
        return state

    def _add(self, node: Node) -> _Part:
        """Make the positions of a node."""
        self._grow(1)
        at = len(self._symbols)
        match node:
            case Run(data):
                self._grow(len(data))
                self._symbols.extend(data)
                self._after.extend([None] * (len(data) - 1))
                self._after.append([])
                return _Part([at], [at + len(data) - 1], False)
            case Set(symbols):
                self._symbols.append(symbols)
                self._after.append([])
                return _Part([at], [at], False)
            case Sequence(parts):
                return self._sequence(self._add(part) for part in parts)
            case Choice(parts):
                chosen = [self._add(part) for part in parts]
                return _Part(
                    [at for part in chosen for at in part.first],
                    [at for part in chosen for at in part.last],
                    any(part.optional for part in chosen),
                )
            case Repeat():
                return self._repeat(node)
        raise ValueError("an assertion in an automaton")

    def _sequence(self, parts: Iterable[_Part]) -> _Part:
        first: list[int] = []
        last: list[int] = []
        optional = True
        for part in parts:
            self._join(last, part.first)
            if optional:
                first = first + part.first
            last = last + part.last if part.optional else part.last
            optional = optional and part.optional
        return _Part(first, last, optional)

    def _repeat(self, node: Repeat) -> _Part:
        """Write a repeat out: ``a{2,3}`` is ``aaa?`` and ``a{2,}`` is ``aa+``."""
        count = max(node.low, 1) if node.high is None else node.high
        copies = []
        for number in range(count):
            part = self._add(node.part)
            if node.high is None and number == count - 1:
                self._join(part.last, part.first)
            copies.append(part._replace(optional=part.optional or number >= node.low))
        return self._sequence(copies)

    def _join(self, before: list[int], after: list[int]) -> None:
        self._grow(len(before) * len(after))
        for at in before:
            known = self._after[at]
            assert known is not None, "only a run's last position is joined"
            known.extend(after)

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            whose = "all patterns together are" if self._limit == _MAX_SIZE else "the pattern is"
            raise PatternError(f"{whose} too large")
