r"""Parses the regular expressions of SELinux policies into trees, and matches a path.

The syntax is that of composefs-rs: Rust's ``regex`` over bytes (so ``a*+`` is a repeat
of a repeat), and PCRE2's for look-around, which Rust lacks. Promises: a pattern has the
same meaning here and there, or it is refused with a :class:`PatternError` that has the
offset. Refused, because the two disagree or no policy uses them: back references, flags,
named and atomic groups, set operations in classes, repeats of more than 1000.

``.`` is any byte but NUL; in a pattern with look-around, any byte but a newline.
A character outside ASCII is the bytes of its UTF-8 form, and one atom.

>>> parse_pattern(rb"/a(b|\.c)?").node
Sequence(parts=(Run(data=b'/a'), Repeat(part=Choice(parts=(Run(data=b'b'), Run(data=b'.c'))), low=0, high=1)))

Source: composefs-rs 0.9, ``composefs-boot/src/selabel.rs``; the documentation of
Rust's ``regex`` 1 and of pcre2pattern(3).
"""  # noqa: E501  (the doctest's one line)

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from bootc.errors import Error
from bootc.printable import printable

MAX_PATTERN_BYTES = 4096
MAX_DEPTH = 100
MAX_REPEAT = 1000


class PatternError(Error):
    """A pattern is malformed, or bootc refuses it."""

    def __init__(self, what: str, offset: int | None = None) -> None:
        super().__init__(what if offset is None else f"{what} at offset {offset} of the pattern")
        self.offset = offset


class Run(NamedTuple):
    """These bytes, one after the other."""

    data: bytes


class Set(NamedTuple):
    """One of these bytes."""

    symbols: frozenset[int]


class Sequence(NamedTuple):
    """One part after the other."""

    parts: tuple[Node, ...]


class Choice(NamedTuple):
    """Any one of the parts."""

    parts: tuple[Node, ...]


class Repeat(NamedTuple):
    """A part, ``low`` times or more, but not more than ``high`` times if that is a number."""

    part: Node
    low: int
    high: int | None


class Look(NamedTuple):
    """An assertion: ``part`` begins here, or ends here if ``behind``; or not, if ``negative``."""

    part: Node
    behind: bool
    negative: bool


class Anchor(NamedTuple):
    """An assertion about the place: ``^``, ``$``, or ``b`` or ``B`` for word boundaries."""

    kind: str


Node = Run | Set | Sequence | Choice | Repeat | Look | Anchor


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern. ``regular`` says that it holds no assertion."""

    node: Node
    regular: bool


def _bytes(text: bytes) -> frozenset[int]:
    return frozenset(text)


_ALL = frozenset(range(256))
_DIGITS = _bytes(b"0123456789")
_LOWER = frozenset(range(ord("a"), ord("z") + 1))
_UPPER = frozenset(range(ord("A"), ord("Z") + 1))
_ALNUM = _DIGITS | _LOWER | _UPPER
_SPACE = _bytes(b"\t\n\v\f\r ")
_WORD = _ALNUM | _bytes(b"_")
_GRAPH = frozenset(range(0x21, 0x7F))
_POSIX = {
    b"alnum": _ALNUM,
    b"alpha": _LOWER | _UPPER,
    b"ascii": frozenset(range(128)),
    b"blank": _bytes(b"\t "),
    b"cntrl": frozenset(range(32)) | {0x7F},
    b"digit": _DIGITS,
    b"graph": _GRAPH,
    b"lower": _LOWER,
    b"print": _GRAPH | {0x20},
    b"punct": _GRAPH - _ALNUM,
    b"space": _SPACE,
    b"upper": _UPPER,
    b"word": _WORD,
    b"xdigit": _bytes(b"0123456789abcdefABCDEF"),
}
_ESCAPED_SETS = {b"d": _DIGITS, b"s": _SPACE, b"w": _WORD}
_CONTROLS = {b"a": 7, b"f": 12, b"n": 10, b"r": 13, b"t": 9, b"v": 11}
_DOT = _ALL - {0}
_DOT_WITH_LOOKS = _ALL - {10}

_TOKEN = re.compile(
    rb"""(?sx)
    # Characters that stand for themselves. A run stops short of one that is repeated.
      (?P<run> (?: [^\\.\[(){*+?|^$\x80-\xff] | \\[^0-9A-Za-z<>\x80-\xff]
                 | [\xc2-\xf4][\x80-\xbf]{1,3} )+ (?![*+?{])
             | [^\\.\[(){*+?|^$\x80-\xff] | \\[^0-9A-Za-z<>\x80-\xff]
             | [\xc2-\xf4][\x80-\xbf]{1,3} )
    | (?P<dot> \. )
    | (?P<class> \[ )
    | (?P<escape> \\ (?: [dDsSwWafnrtv] | x[0-9A-Fa-f]{2} ) )
    | (?P<look> \(\?<?[=!] )
    | (?P<open> \( (?! \?[^:] | \* ) (?:\?:)? )
    | (?P<close> \) )
    | (?P<bar> \| )
    | (?P<repeat> (?: [*+?] | \{[0-9]+(?:,[0-9]*)?\} ) \?? )
    | (?P<brace> \{ (?!,) )
    | (?P<anchor> [$^] | \\[AzbB] )
    """
)
_QUOTED = re.compile(rb"(?s)\\(.)")
_CLASS_ITEM = re.compile(
    rb"""(?sx)
      \[: (?P<inverse>\^?) (?P<posix>[a-z]+) :\]
    | (?P<escape> \\ (?: [dDsSwWafnrtv] | x[0-9A-Fa-f]{2} | [^0-9A-Za-z<>\x80-\xff] ) )
    | (?P<plain> [^\\\[\x80-\xff] )
    """
)
_SET_OPERATOR = re.compile(rb"&&|--|~~")


def parse_pattern(text: bytes) -> Pattern:
    """Parse a pattern.

    Raises:
        PatternError: it is malformed, or refused.
    """
    if len(text) > MAX_PATTERN_BYTES:
        raise PatternError(f"a pattern of {len(text)} bytes (the limit is {MAX_PATTERN_BYTES})")
    return _Parser(text).pattern()


class _Token(NamedTuple):
    name: str
    offset: int
    text: bytes
    symbols: frozenset[int] = frozenset()


class _Parser:
    """Recursive descent over the tokens of one pattern."""

    def __init__(self, text: bytes) -> None:
        self._tokens = [*_tokens(text), _Token("end", len(text), b"")]
        self._at = 0
        names = {token.name for token in self._tokens}
        # composefs-rs gives patterns that Rust cannot parse to PCRE2, which has another dialect.
        self._perl = not names.isdisjoint(("look", "brace"))
        self._regular = names.isdisjoint(("look", "anchor"))

    def pattern(self) -> Pattern:
        node = self._choice(0)
        token = self._tokens[self._at]
        if token.name != "end":
            raise PatternError("a ) without its (", token.offset)
        return Pattern(node, self._regular)

    def _choice(self, depth: int) -> Node:
        parts = [self._sequence(depth)]
        while self._tokens[self._at].name == "bar":
            self._at += 1
            parts.append(self._sequence(depth))
        return parts[0] if len(parts) == 1 else Choice(tuple(parts))

    def _sequence(self, depth: int) -> Node:
        parts: list[Node] = []
        while self._tokens[self._at].name not in ("bar", "close", "end"):
            parts.append(self._repeated(depth))
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def _repeated(self, depth: int) -> Node:
        node = self._atom(depth)
        first = True
        while (token := self._tokens[self._at]).name == "repeat":
            low, high = _bounds(token)
            # In PCRE2 a second + has another meaning, and no policy repeats a count.
            if not first and (self._perl or token.text.startswith(b"{")):
                raise PatternError("a repeat of a repeat", token.offset)
            node = Repeat(node, low, high)
            first = False
            self._at += 1
        return node

    def _atom(self, depth: int) -> Node:
        token = self._tokens[self._at]
        self._at += 1
        match token.name:
            case "run":
                return Run(_QUOTED.sub(rb"\1", token.text))
            case "set":
                return Set(token.symbols)
            case "dot":
                return Set(_DOT_WITH_LOOKS if self._perl else _DOT)
            case "brace":
                return Run(token.text)
            case "anchor":
                return Anchor({"A": "^", "z": "$"}.get(kind := chr(token.text[-1]), kind))
            case "repeat":
                raise PatternError("nothing to repeat", token.offset)
        if depth == MAX_DEPTH:
            raise PatternError("groups nested too deep", token.offset)
        node = self._choice(depth + 1)
        if self._tokens[self._at].name != "close":
            raise PatternError("a ( without its )", token.offset)
        self._at += 1
        if token.name == "look":
            return Look(node, b"<" in token.text, token.text.endswith(b"!"))
        return node


def _bounds(token: _Token) -> tuple[int, int | None]:
    match token.text[:1]:
        case b"*":
            return 0, None
        case b"+":
            return 1, None
        case b"?":
            return 0, 1
    low_text, comma, high_text = token.text.rstrip(b"?").strip(b"{}").partition(b",")
    low = int(low_text)
    high = int(high_text) if high_text else None if comma else low
    if low > MAX_REPEAT or (high is not None and not low <= high <= MAX_REPEAT):
        raise PatternError("bad numbers of a repeat", token.offset)
    return low, high


def _tokens(text: bytes) -> Iterator[_Token]:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            what = "a lone \\" if text[at:] == b"\\" else f"{printable(text[at : at + 3])}…"
            raise PatternError(f"not supported: {what}", at)
        name = found.lastgroup or ""
        if name == "class":
            symbols, end = _class(text, at)
            yield _Token("set", at, text[at:end], symbols)
            at = end
            continue
        if name == "escape":
            yield _Token("set", at, found[0], _escape(found[0]))
        else:
            yield _Token(name, at, found[0])
        at = found.end()


def _class(text: bytes, start: int) -> tuple[frozenset[int], int]:
    """Parse a bracketed class; return its bytes and where it ends."""
    at = start + 1
    if inverse := text.startswith(b"^", at):
        at += 1
    symbols: frozenset[int] = frozenset()
    first = at
    # A ] at the very start is one of the characters.
    while at == first or not text.startswith(b"]", at):
        operator = _SET_OPERATOR.match(text, at)
        item = _CLASS_ITEM.match(text, at)
        if operator or item is None:
            what = "an operator" if operator else printable(text[at : at + 2]) or "the end"
            raise PatternError(f"not supported in a class: {what}", at)
        members = _members(item)
        at = item.end()
        if text.startswith(b"-", at) and text[at + 1 : at + 2] not in (b"]", b"-"):
            last = _CLASS_ITEM.match(text, at + 1)
            ends = _members(last) if last else frozenset[int]()
            if len(members) != 1 or len(ends) != 1 or min(members) > min(ends):
                raise PatternError("bad range of characters", at)
            members = frozenset(range(min(members), min(ends) + 1))
            at = last.end() if last else at
        symbols |= members
    return (_ALL - symbols if inverse else symbols), at + 1


def _members(item: re.Match[bytes]) -> frozenset[int]:
    if item["posix"] is not None:
        if item["posix"] not in _POSIX:
            raise PatternError(f"no such class: {printable(item[0])}", item.start())
        named = _POSIX[item["posix"]]
        return _ALL - named if item["inverse"] else named
    return _escape(item[0]) if item["escape"] is not None else _bytes(item[0])


def _escape(text: bytes) -> frozenset[int]:
    letter = text[1:]
    if letter.lower() in _ESCAPED_SETS:
        named = _ESCAPED_SETS[letter.lower()]
        return named if letter.islower() else _ALL - named
    if letter[:1] == b"x" and len(letter) == 3:
        return frozenset({int(letter[1:], 16)})
    return frozenset({_CONTROLS.get(letter, letter[0])})


class Simulation:
    """Matches any pattern against one text, assertions included, without backtracking.

    It moves sets of offsets through the pattern, so that nothing is walked twice from the same
    place, and gives up after a number of steps proportional to the text.

    >>> Simulation(b"/run/xl-").ends(parse_pattern(rb"/run/(?!y).").node)
    {6}
    """

    STEPS_PER_BYTE = 1000

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._steps_left = self.STEPS_PER_BYTE * (len(text) + 1)

    def ends(self, node: Node) -> set[int]:
        """Return where matches that begin with the text can end.

        Raises:
            PatternError: it takes too many steps.
        """
        return self._advance(node, {0})

    def _advance(self, node: Node, starts: set[int]) -> set[int]:
        self._steps_left -= len(starts) + 1
        if self._steps_left < 0:
            raise PatternError("takes too many steps to match")
        text = self._text
        match node:
            case Run(data):
                return {at + len(data) for at in starts if text.startswith(data, at)}
            case Set(symbols):
                return {at + 1 for at in starts if at < len(text) and text[at] in symbols}
            case Sequence(parts):
                for part in parts:
                    starts = self._advance(part, starts) if starts else starts
                return starts
            case Choice(parts):
                return set().union(*(self._advance(part, starts) for part in parts))
            case Repeat():
                return self._repeat(node, starts)
            case Look(part, behind, negative):
                return {at for at in starts if self._looks(part, behind, at) != negative}
            case Anchor(kind):
                return {at for at in starts if self._holds(kind, at)}

    def _repeat(self, node: Repeat, starts: set[int]) -> set[int]:
        for _ in range(node.low):
            starts = self._advance(node.part, starts)
        reached, fresh = set(starts), starts
        more = len(self._text) if node.high is None else node.high - node.low
        while fresh and more:
            fresh = self._advance(node.part, fresh) - reached
            reached |= fresh
            more -= 1
        return reached

    def _looks(self, part: Node, behind: bool, at: int) -> bool:
        if behind:
            return any(at in self._advance(part, {start}) for start in range(at + 1))
        return bool(self._advance(part, {at}))

    def _holds(self, kind: str, at: int) -> bool:
        match kind:
            case "^":
                return at == 0
            case "$":
                return at == len(self._text)
        sides = (self._text[max(at - 1, 0) : at], self._text[at : at + 1])
        before, after = (bool(side) and side[0] in _WORD for side in sides)
        return (before != after) == (kind == "b")
