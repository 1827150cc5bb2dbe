"""``docs/reference/commands.md`` says of every command and option what the command line has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.cli.options import Command
from bootc.cli.table import commands_for

PAGE = Path(__file__).parents[3] / "docs/reference/commands.md"
UNITS = Path(__file__).parents[3] / "data/systemd"
EXISTS = {"here", "differs", "no effect", "refused"}
ABSENT = {"later", "never"}

#: A command, and one of its options or None.
Word = tuple[str, str | None]


def table(title: str) -> list[list[str]]:
    """Return the cells of the rows below a title, without the head."""
    section = PAGE.read_text("utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def words(row: list[str]) -> Iterator[Word]:
    command = row[0].strip("`")
    yield command, None
    for flag in re.findall(r"`(--[a-z-]+)`", row[1]):
        yield command, flag


def stated() -> dict[Word, str]:
    """Return the state of every command and option on the page; of several rows, the first."""
    found: dict[Word, str] = {}
    for row in table("Upstream's commands"):
        for word in words(row):
            assert word[1] is None or word not in found, word
            found.setdefault(word, row[2])
    for row in table("Only here"):
        for word in words(row):
            assert word[1] is None or word not in found, word
            found.setdefault(word, "here")
    return found


def existing(commands: tuple[Command, ...], above: str = "") -> Iterator[Word]:
    """Yield the verbs of the command line, and their options by the longest name."""
    for command in commands:
        verb = f"{above} {command.name}".strip()
        if not command.commands:
            yield verb, None
        for option in command.options:
            if option.flags[0].startswith("-"):
                yield verb, max(option.flags, key=len)
        yield from existing(command.commands, verb)


STATED = stated()
EXISTING = set(existing(commands_for()))
GROUPS = {words[0] for words in EXISTING if (words[0], None) not in EXISTING}


def test_every_command_and_option_is_on_the_page() -> None:
    assert sorted(map(str, EXISTING - STATED.keys())) == []


@pytest.mark.parametrize(("word", "state"), STATED.items(), ids=str)
def test_the_page_says_what_exists(word: Word, state: str) -> None:
    assert state in EXISTS | ABSENT
    is_there = word in EXISTING or (word[1] is None and word[0] in GROUPS)
    assert is_there == (state in EXISTS)


def test_what_is_not_plainly_here_has_a_remark() -> None:
    rows = table("Upstream's commands")
    assert [row for row in rows if row[2] != "here" and not row[3]] == []
    assert len(rows) > 100


def test_the_units_on_the_page_are_shipped() -> None:
    shipped = {path.name for path in UNITS.glob("*.*")}
    stated = {
        unit: row[1] in EXISTS
        for row in table("Units")
        for unit in re.findall(r"`([a-z-]+\.[a-z]+)`", row[0])
    }
    generated = {"bootc-early-overlay-relabel.service"}
    assert {unit for unit, there in stated.items() if there} == shipped | generated
