"""Reads SELinux ``file_contexts`` and looks up the label of a path.

Promises: the label is the one that composefs-rs finds, so digests agree: the last matching line
has the label. (libselinux sorts lines by how specific they are. Compiled policies
are sorted already, so the two differ only in corner cases.) A bad line is refused with the
name of the file and the number of the line.

A line is ``REGEX [-TYPE] CONTEXT``; the regular expression matches whole paths
(:mod:`bootc.formats.pathregex`), the type is one of ``b c d l p s -``, the context
``<<none>>`` means "no label". A line of ``.subs`` files is ``ALIAS ORIGINAL``: paths
below ALIAS get the labels of paths below ORIGINAL.

Source: selabel_file(5); composefs-rs 0.9, ``composefs-boot/src/selabel.rs``.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from bootc.errors import Error
from bootc.formats.automaton import Automaton
from bootc.formats.pathregex import Node, PatternError, Simulation, parse_pattern
from bootc.printable import printable

_NO_LABEL = b"<<none>>"


class FileContextsError(Error):
    """A policy's file is malformed, or asks for what is not supported."""

    def __init__(self, file: str, line: int, what: str) -> None:
        super().__init__(f"{file}:{line}: {what}")


class FileType(enum.Enum):
    """Types of files. ``value`` is the letter after the dash."""

    BLOCK_DEVICE = b"b"
    CHAR_DEVICE = b"c"
    DIRECTORY = b"d"
    SYMLINK = b"l"
    FIFO = b"p"
    SOCKET = b"s"
    REGULAR = b"-"


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a ``file_contexts`` file. ``file_type`` is None for "any"."""

    pattern: bytes
    file_type: FileType | None
    context: bytes
    file: str
    line: int


def parse_file_contexts(data: bytes, file: str) -> list[Rule]:
    """Return the rules in a file; ``file`` is its name for messages.

    Raises:
        FileContextsError: a line is malformed.
    """
    rules = []
    for number, words in _lines(data, file):
        file_type = None
        if len(words) > 1 and words[1].startswith(b"-"):
            try:
                file_type = FileType(words[1][1:])
            except ValueError:
                raise FileContextsError(
                    file, number, f"unknown file type '{printable(words[1], 200)}'"
                ) from None
            del words[1]
        if len(words) != 2:
            raise FileContextsError(file, number, "not of the form REGEX [-TYPE] CONTEXT")
        rules.append(Rule(words[0], file_type, words[1], file, number))
    return rules


def parse_subs(data: bytes, file: str) -> dict[bytes, bytes]:
    """Return a file's aliases and what they stand for; of lines for one alias the last counts.

    Raises:
        FileContextsError: a line is malformed.
    """
    aliases = {}
    for number, words in _lines(data, file):
        if len(words) != 2:
            raise FileContextsError(file, number, "not of the form ALIAS ORIGINAL")
        aliases[words[0]] = words[1]
    return aliases


def _lines(data: bytes, file: str) -> Iterator[tuple[int, list[bytes]]]:
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.isascii():
            try:
                line.decode()
            except UnicodeDecodeError:
                raise FileContextsError(file, number, "not UTF-8") from None
        words = line.split()
        if words and not words[0].startswith(b"#"):
            yield number, words


class FileContexts:
    """The labels a policy gives.

    Args:
        rules: The rules in the order of the files. Later rules take precedence.
        aliases: As :func:`parse_subs` returns them.

    Raises:
        FileContextsError: a pattern is malformed or not supported.
    """

    def __init__(self, rules: Iterable[Rule], aliases: Mapping[bytes, bytes]) -> None:
        self.aliases = aliases
        self._automaton = Automaton()
        #: For each pattern of the automaton: the index of its rule, and the rule.
        self._regular: list[tuple[int, Rule]] = []
        #: Rules that no automaton can match, the last first. Policies have few or no such rules.
        self._irregular: list[tuple[int, Rule, Node]] = []
        for place, rule in enumerate(rules):
            try:
                pattern = parse_pattern(rule.pattern)
                if pattern.regular:
                    self._automaton.add(pattern.node)
            except PatternError as exc:
                raise _cannot_match(rule, exc) from None
            if pattern.regular:
                self._regular.append((place, rule))
            else:
                self._irregular.append((place, rule, pattern.node))
        self._irregular.reverse()

    def lookup(self, path: bytes, file_type: FileType) -> bytes | None:
        """Return the label of an absolute path, or None if it gets none. Aliases are not followed.

        Raises:
            FileContextsError: finding out whether a pattern matches takes too long.
        """
        found, context = -1, None
        for index in self._automaton.matches(path):
            place, rule = self._regular[index]
            if rule.file_type is None or rule.file_type is file_type:
                found, context = place, rule.context
                break
        for place, rule, node in self._irregular:
            if place < found:
                break
            if rule.file_type is not None and rule.file_type is not file_type:
                continue
            # Patterns are matched against the path with the type's letter behind it, and an
            # assertion can tell.
            try:
                ends = Simulation(path + file_type.value).ends(node)
            except PatternError as exc:
                raise _cannot_match(rule, exc) from None
            if len(path) in ends:
                context = rule.context
                break
        return None if context == _NO_LABEL else context


def _cannot_match(rule: Rule, exc: PatternError) -> FileContextsError:
    return FileContextsError(
        rule.file, rule.line, f"'{printable(rule.pattern, 200)}': {exc.message}"
    )
