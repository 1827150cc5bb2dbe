"""Only the module of the verb that is asked for is imported, and nobody can tell from outside."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

import pytest

from bootc.cli.options import TRANSPORT_NAMES, Command, TextWanted, build_parser
from bootc.cli.table import INTERNALS, VERBS, as_called, commands_for
from bootc.errors import Error
from bootc.formats.imgref import TRANSPORTS

ALL_WORDS = [[verb] for verb in VERBS] + [["internals", verb] for verb in INTERNALS]


def brought_by(module: str) -> tuple[Command, ...]:
    commands: tuple[Command, ...] = importlib.import_module(f"bootc.cli.verbs.{module}").COMMANDS
    return commands


def names_of(commands: Sequence[Command]) -> list[str]:
    return [name for command in commands for name in (command.name, *command.aliases)]


@pytest.mark.parametrize("table", [VERBS, INTERNALS], ids=["verbs", "internals"])
def test_the_modules_bring_what_the_table_says(table: Mapping[str, str]) -> None:
    modules = dict.fromkeys(table.values())
    assert list(table.items()) == [
        (name, module) for module in modules for name in names_of(brought_by(module))
    ]


def test_all_commands() -> None:
    *verbs, internals = commands_for()
    assert names_of(verbs) == list(VERBS)
    assert internals.name == "internals"
    assert names_of(internals.commands) == list(INTERNALS)
    assert [command.name for command in (*verbs, internals) if command.hidden] == [
        *("config-diff", "exec-in-host-mount-namespace", "edit", "loader-entries", "state"),
        "internals",
    ]
    assert not [command.name for command in internals.commands if command.hidden]


@pytest.mark.parametrize("words", ALL_WORDS, ids=" ".join)
def test_a_verb_comes_without_those_of_other_modules(words: list[str]) -> None:
    commands = commands_for([*words, "--help"])
    table = VERBS
    if words[0] == "internals":
        (internals,) = commands
        commands, table = internals.commands, INTERNALS
    assert commands == brought_by(table[words[-1]])


@pytest.mark.parametrize(
    "words",
    [[], [""], ["no-such-verb"], ["--help"], ["-V", "status"], ["--", "status"], ["cfs"], ["stat"]],
    ids=" ".join,
)
def test_without_a_verb_in_front_there_are_all(words: list[str]) -> None:
    assert commands_for(words) == commands_for()


@pytest.mark.parametrize("words", ALL_WORDS, ids=" ".join)
def test_the_help_of_a_verb_imports_that_verb(words: list[str]) -> None:
    assert commands_for(["help", *words]) == commands_for(words)
    asked = said(commands_for(["help", *words]), ["help", *words])
    assert asked == said(commands_for(), [*words, "--help"])
    assert asked == said(commands_for(), [*words[:-1], "help", words[-1]])


@pytest.mark.parametrize("words", [[], ["internals"], ["internals", "cfs"], ["install"]])
def test_each_group_has_help(words: list[str]) -> None:
    assert said(commands_for(), [*words, "help"]) == said(commands_for(), [*words, "--help"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["help", "statsu"], "unknown command 'statsu'"),
        (["install", "help", "x"], "unknown command 'x'"),
        (["help", "status", "x"], "unknown command 'x'"),
    ],
)
def test_help_for_what_does_not_exist(words: list[str], told: str) -> None:
    assert said(commands_for(words), words) == told


@pytest.mark.parametrize("words", [[], ["no-such-verb"], ["--help"], ["status"]], ids=" ".join)
def test_internals_without_a_verb_of_its_own_has_all(words: list[str]) -> None:
    assert commands_for(["internals", *words]) == commands_for()[-1:]


def said(commands: Sequence[Command], argv: list[str]) -> str:
    parser = build_parser("bootc", tuple(commands), "1")
    with pytest.raises((TextWanted, Error)) as caught:
        parser.parse_args(argv)
    return str(caught.value)


@pytest.mark.parametrize("more", [["--help"], ["--no-such-option"]], ids=" ".join)
@pytest.mark.parametrize("words", ALL_WORDS, ids=" ".join)
def test_what_is_said_is_the_same_as_with_all(words: list[str], more: list[str]) -> None:
    argv = [*words, *more]
    assert said(commands_for(argv), argv) == said(commands_for(), argv)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["/usr/bin/bootc"], []),
        (["bootc", "status"], ["status"]),
        (["bootc", "mkcomposefs"], ["mkcomposefs"]),
        (["/usr/bin/mkcomposefs", "-h"], ["internals", "mkcomposefs", "-h"]),
        (["composefs-info"], ["internals", "composefs-info"]),
        (
            ["/usr/lib/systemd/system-generators/bootc-systemd-generator", "/run/a", "/run/b"],
            ["internals", "systemd-generator", "/run/a", "/run/b"],
        ),
        (["./cfsctl", "gc"], ["internals", "cfsctl", "gc"]),
        # That is a name of ours only: no program is called so.
        (["cfs", "gc"], ["gc"]),
    ],
)
def test_names_to_be_called_by(argv: list[str], words: list[str]) -> None:
    assert as_called(argv) == words


def test_offered_transports_are_all_transports() -> None:
    assert TRANSPORT_NAMES == TRANSPORTS
