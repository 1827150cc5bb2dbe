from __future__ import annotations

import re
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from bootc.formats.digest import Algorithm
from bootc.formats.dumpfile import DumpfileError, parse_dumpfile, write_dumpfile
from bootc.formats.libcomposefs import dumpfile as c_dumpfile
from bootc.formats.tree import Directory
from support.trees import text_of, trees

PARSERS: list[Callable[[list[bytes]], object]] = [parse_dumpfile, c_dumpfile.parse_dumpfile]

_COLUMN = st.sampled_from(
    [
        b"/",
        b"/a",
        b"-",
        b"0",
        b"1",
        b"@",
        b"40755",
        b"100644",
        b"20644",
        b"0.0",
        b"a=b",
        b"\\x",
        b"",
    ]
)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(Algorithm).flatmap(trees))
def test_text_holds_the_whole_tree(tree: Directory) -> None:
    lines = list(write_dumpfile(tree))
    assert text_of(parse_dumpfile(lines)) == lines
    assert text_of(parse_dumpfile(line.rstrip(b"\n") for line in lines)) == lines


@settings(deadline=None, max_examples=60)
@given(trees())
def test_lines_are_printable(tree: Directory) -> None:
    assert all(re.fullmatch(rb"[!-~]+(?: [!-~]+){10,}\n", line) for line in write_dumpfile(tree))


@settings(deadline=None, max_examples=60)
@given(tree=trees(), parse=st.sampled_from(PARSERS), data=st.data())
def test_damaged_text_is_read_or_refused(
    tree: Directory, parse: Callable[[list[bytes]], object], data: st.DataObject
) -> None:
    text = bytearray(b"".join(write_dumpfile(tree)))
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    refuse_with_a_position(bytes(text).splitlines(keepends=True), parse)


@given(
    lines=st.lists(st.lists(_COLUMN, max_size=13).map(b" ".join), max_size=4),
    parse=st.sampled_from(PARSERS),
)
def test_odd_columns_are_read_or_refused(
    lines: list[bytes], parse: Callable[[list[bytes]], object]
) -> None:
    refuse_with_a_position([b"/ 0 40755 2 0 0 0 0.0 - - -", *lines], parse)


def refusal_of(lines: list[bytes], parse: Callable[[list[bytes]], object]) -> str | None:
    try:
        parse(lines)
    except DumpfileError as exc:
        return exc.message
    return None


def refuse_with_a_position(lines: list[bytes], parse: Callable[[list[bytes]], object]) -> None:
    """Parse lines, or see that the error tells a line and a column there are."""
    message = refusal_of(lines, parse)
    if message is not None:
        match = re.match(r"dumpfile line (\d+), column (\d+) \(\w+\): .", message)
        assert match
        assert message.isprintable()
        line = lines[int(match[1]) - 1].removesuffix(b"\n")
        assert 1 <= int(match[2]) <= len(line) + 1
