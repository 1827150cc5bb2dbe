"""Commands and options as data, which argparse and the test of the manual pages read."""

from __future__ import annotations

import argparse
import functools
import getopt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from bootc.errors import Error, UsageError
from bootc.events import Sink
from bootc.printable import printable

#: The verb of every group that prints the help of a command.
HELP_VERB = "help"
#: The transports of image references that shells offer; all of :mod:`bootc.formats.imgref`, whose
#: import the table of commands does not pay for.
TRANSPORT_NAMES = (
    "registry",
    "oci",
    "oci-archive",
    "docker-archive",
    "docker-daemon",
    "containers-storage",
    "dir",
)
#: An error shows this many characters of unknown arguments.
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Option:
    """An option (flags start with ``-``) or a positional argument (a bare name).

    ``default`` is ``False`` for a switch and ``()`` for an option that may repeat. ``metavars``
    are the names of the values of an option with several. The user may leave out a positional
    argument that is ``optional``, and give one that is ``repeated`` several times. A positional
    argument with ``remainder`` takes all words that follow, also those with a dash. No value can be
    the empty string, unless the option ``takes_empty``: an empty value is usually the variable of a
    script that has no value. Shells offer ``offered`` values, and the user may give others.
    """

    flags: tuple[str, ...]
    help: str
    metavar: str | None = None
    metavars: tuple[str, ...] = ()
    default: str | int | bool | tuple[str, ...] | None = None
    choices: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    parse: Callable[[str], object] | None = None
    required: bool = False
    optional: bool = False
    repeated: bool = False
    remainder: bool = False
    takes_empty: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of a verb: where its result and its events go.

    Attributes:
        write: Prints text of the result. It never raises, so the work of the verb goes on.
        write_bytes: Prints bytes of the result. It raises if standard output takes no more.
        sink: Shows progress and messages. Some of them may get lost.
        stdout_is_terminal: Whether a person reads the result.
        messages_are_the_result: A verb calls it if its messages are its result, as in a dry run.
        all_commands: Returns the commands of the program. A verb cannot import their table, which
            imports the verb.
    """

    write: Callable[[str], None]
    write_bytes: Callable[[bytes], None]
    sink: Sink
    stdout_is_terminal: bool
    messages_are_the_result: Callable[[], None] = lambda: None
    all_commands: Callable[[], tuple[Command, ...]] = tuple


class TextWanted(Exception):
    """The user asks for a text only, with ``--help`` or ``--version``."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


#: Returns the exit code, or None for 0.
Run = Callable[[argparse.Namespace, Context], int | None]


@dataclass(frozen=True, slots=True)
class Command:
    """One verb, or a group of verbs when ``commands`` is not empty.

    A verb with ``like_getopt`` replaces a tool written in C and reads its arguments like
    ``getopt_long(3)``: options may follow operands, the user may shorten them, and the exit code
    for wrong usage is 1.

    If a group and one of its verbs have the same option, it may stand before or after the verb.

    A group with ``run`` is a verb as well: if its first word is none of its verbs, all words are
    its own arguments. It has positional arguments, and shares no options with its verbs.
    """

    name: str
    help: str
    options: tuple[Option, ...] = ()
    commands: tuple[Command, ...] = ()
    run: Run | None = None
    aliases: tuple[str, ...] = ()
    hidden: bool = False
    like_getopt: bool = False


class _ShowText(argparse.Action):
    """Raises :class:`TextWanted` with the version or the help; argparse's own actions exit."""

    def __init__(self, option_strings: Sequence[str], dest: str, version: str = "") -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS)
        self.help = "Print the version." if version else "Print this help."
        self._version = version

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Stop reading the command line."""
        raise TextWanted(self._version or parser.format_help())


class _ShowHelpOf(argparse.Action):
    """Raises :class:`TextWanted` with the help of the command that the words name."""

    def __init__(self, option_strings: Sequence[str], dest: str, group: _Parser, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs="*", metavar="COMMAND")
        self.help = "The command (default: this one)."
        self._group = group

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, values: Any, *_: object
    ) -> NoReturn:
        """Stop reading the command line."""
        found = self._group
        for word in values:
            if word == HELP_VERB:
                # Each group has this verb, and its help is that of the group.
                break
            if word not in found.verbs:
                raise UsageError(
                    f"unknown command {word!r:.80}", hint=_hint(word, [*found.verbs], found.prog)
                )
            found = found.verbs[word]
        raise TextWanted(found.format_help())


class _Parser(argparse.ArgumentParser):
    """A parser that raises instead of exiting.

    Args:
        like_getopt: Read arguments like a tool in C (:class:`Command`).
        **settings: The settings of argparse.
    """

    def __init__(self, *, like_getopt: bool = False, **settings: Any) -> None:
        super().__init__(add_help=False, **settings)
        #: Python 3.14 colours help texts, but here they are results, which have no escapes.
        self.color = False
        self.add_argument("-h", "--help", action=_ShowText)
        self.like_getopt = like_getopt
        #: In the form of the getopt module: options with a value end in ``=``.
        self.long_options = ["help"]
        #: The parsers of the commands below, by name and alias.
        self.verbs: dict[str, _Parser] = {}
        #: Reads the arguments of a group that is a verb as well.
        self.own: _Parser | None = None

    def error(self, message: str) -> NoReturn:
        kind = Error if self.like_getopt else UsageError
        raise kind(message, hint=f"see {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if isinstance(action, argparse._SubParsersAction) and value not in action.choices:
            known = [choice.dest for choice in action._get_subactions()]
            raise UsageError(f"unknown command {value!r:.80}", hint=_hint(value, known, self.prog))
        super()._check_value(action, value)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Read a command line. The hint of an error is about the verb that the user named."""
        found, extra = self.parse_known_args(args, namespace)
        if extra:
            name = extra[0].partition("=")[0]
            known = found.flags if name.startswith("--") else ()
            raise UsageError(_unrecognized(extra), hint=_hint(name, known, found.program))
        return found

    def parse_known_args(
        self, args: Iterable[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        if self.own is not None:
            words = list(args or ())
            if not words or words[0] not in (*self.verbs, HELP_VERB):
                return self.own.parse_known_args(words, namespace)
            return super().parse_known_args(words, namespace)
        if not self.like_getopt:
            return super().parse_known_args(args, namespace)
        # argparse's parse_intermixed_args does not support commands.
        try:
            found, operands = getopt.gnu_getopt(list(args or ()), "h", self.long_options)
        except getopt.GetoptError as exc:
            self.error(exc.msg)
        options = [
            f"{name}={value}" if f"{name[2:]}=" in self.long_options else name
            for name, value in found
        ]
        parsed, extra = super().parse_known_args([*options, "--", *operands], namespace)
        if extra:
            self.error(_unrecognized(extra))
        return parsed, extra


def _unrecognized(arguments: Sequence[str]) -> str:
    return f"unrecognized arguments: {printable(' '.join(arguments), _SHOWN)}"


def _hint(word: str, known: Sequence[str], program: str) -> str:
    """Return a hint: the known word that is nearest, or the help to read."""
    import difflib  # importing it takes as long as a short command

    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else f"see {program} --help"


def build_parser(program: str, commands: tuple[Command, ...], version: str) -> _Parser:
    """Turn the command table into a parser. Wrong usage raises :class:`UsageError`."""
    parser = _Parser(
        prog=program,
        description="Deploy and boot operating systems from container images.",
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action=_ShowText, version=f"{program} {version}\n")
    parser.set_defaults(run=None, program=program, flags=("--help", "--version"))
    _add_commands(parser, commands)
    return parser


def _add_commands(
    parser: _Parser, commands: tuple[Command, ...], above: frozenset[str] = frozenset()
) -> None:
    group = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=_Parser)
    for command in commands:
        text: dict[str, Any] = {} if command.hidden else {"help": command.help}
        child = group.add_parser(
            command.name,
            description=command.help,
            aliases=command.aliases,
            allow_abbrev=False,
            like_getopt=command.like_getopt,
            **text,
        )
        reader = child
        if command.commands and command.run is not None:
            reader = child.own = _own_parser(child.prog, command)
        for option in command.options:
            _add_option(reader, option, inherits=not above.isdisjoint(option.flags))
        if command.commands:
            given = (flag for option in command.options for flag in option.flags)
            inherited = above.union(given) if reader is child else above
            _add_commands(child, command.commands, inherited)
        parser.verbs |= dict.fromkeys((command.name, *command.aliases), child)
        shown = [option for option in command.options if not option.hidden]
        flags = [flag for option in shown for flag in option.flags if flag.startswith("--")]
        reader.set_defaults(run=command.run, program=child.prog, flags=("--help", *flags))
    text_of = "Print the help of a command."
    child = group.add_parser(HELP_VERB, description=text_of, help=text_of, allow_abbrev=False)
    child.add_argument("words", action=_ShowHelpOf, group=parser)


def _own_parser(program: str, command: Command) -> _Parser:
    """Return the parser for the arguments of a group that is a verb as well."""
    verbs = "".join(f"\n  {below.name:<9} {below.help}" for below in command.commands)
    return _Parser(
        prog=program,
        description=command.help,
        epilog=f"commands:{verbs}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _refusing_empty(parse: Callable[[str], object]) -> Callable[[str], object]:
    @functools.wraps(parse)  # argparse shows the name
    def parsed(text: str) -> object:
        if not text:
            raise argparse.ArgumentTypeError("the value is empty")
        return parse(text)

    return parsed


def _add_option(parser: _Parser, option: Option, *, inherits: bool = False) -> None:
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
        if option.takes_empty or option.remainder or parser.like_getopt:
            arguments["type"] = option.parse or str
        else:
            arguments["type"] = _refusing_empty(option.parse or str)
    if inherits:
        # The default of the verb must not replace what the user gave to the group.
        arguments["default"] = argparse.SUPPRESS
    if option.flags[0].startswith("-"):
        if option.required:
            arguments["required"] = True
        value = "" if option.default is False else "="
        parser.long_options += [flag[2:] + value for flag in option.flags if flag[:2] == "--"]
    elif option.optional:
        arguments["nargs"] = "?"
    elif option.repeated:
        arguments["nargs"] = "+"
    elif option.remainder:
        arguments["nargs"] = argparse.REMAINDER
    parser.add_argument(*option.flags, **arguments)
