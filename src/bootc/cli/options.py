"""Commands and options as data: argparse and the manual pages' test read this one table."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from bootc.errors import UsageError
from bootc.events import Sink


@dataclass(frozen=True, slots=True)
class Option:
    """An option (flags start with ``-``) or a positional argument (a bare name).

    ``default`` is ``False`` for a switch, ``()`` for an option that may repeat. ``metavars``
    name the values of an option that takes several.
    """

    flags: tuple[str, ...]
    help: str
    metavar: str | None = None
    metavars: tuple[str, ...] = ()
    default: str | int | bool | tuple[str, ...] | None = None
    choices: tuple[str, ...] = ()
    parse: Callable[[str], object] | None = None
    required: bool = False
    optional: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """What a verb is given besides its own arguments."""

    write: Callable[[str], None]
    sink: Sink
    stdout_is_terminal: bool


#: Returns the exit code, or None for 0.
Run = Callable[[argparse.Namespace, Context], int | None]


@dataclass(frozen=True, slots=True)
class Command:
    """One verb, or a group of verbs when ``commands`` is not empty."""

    name: str
    help: str
    options: tuple[Option, ...] = ()
    commands: tuple[Command, ...] = ()
    run: Run | None = None
    aliases: tuple[str, ...] = ()
    hidden: bool = False


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see {self.prog} --help")


def build_parser(program: str, commands: tuple[Command, ...], version: str) -> _Parser:
    """Turn the command table into a parser. Wrong usage raises :class:`UsageError`."""
    parser = _Parser(
        prog=program,
        description="Deploy and boot operating systems from container images.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", "-V", action="version", version=f"{program} {version}")
    _add_commands(parser, commands)
    return parser


def _add_commands(parser: argparse.ArgumentParser, commands: tuple[Command, ...]) -> None:
    shown = [c.name for c in commands if not c.hidden]
    group = parser.add_subparsers(
        title="commands", metavar="|".join(shown), required=True, parser_class=_Parser
    )
    for command in commands:
        text: dict[str, Any] = {} if command.hidden else {"help": command.help}
        child = group.add_parser(
            command.name,
            description=command.help,
            aliases=command.aliases,
            allow_abbrev=False,
            **text,
        )
        for option in command.options:
            _add_option(child, option)
        if command.commands:
            _add_commands(child, command.commands)
        child.set_defaults(run=command.run)


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    arguments: dict[str, Any] = {"help": argparse.SUPPRESS if option.hidden else option.help}
    if option.default is False:
        arguments["action"] = "store_true"
    else:
        if option.default == ():
            arguments["action"] = "append"
            arguments["default"] = []
        else:
            arguments["default"] = option.default
        if option.choices:
            arguments["choices"] = option.choices
        if option.metavar:
            arguments["metavar"] = option.metavar
        if option.metavars:
            arguments["metavar"] = option.metavars
            arguments["nargs"] = len(option.metavars)
        if option.parse:
            arguments["type"] = option.parse
    if option.flags[0].startswith("-"):
        if option.required:
            arguments["required"] = True
    elif option.optional:
        arguments["nargs"] = "?"
    parser.add_argument(*option.flags, **arguments)
