"""Scripts that let a shell complete the command line, made from the table of commands.

A script finds out which verb the words before the cursor name. It then offers the verbs below it,
its options, or the values of an option. If there is nothing of this kind, it offers files. The
scripts call no program.

Hidden verbs and options are not offered. A hidden verb that the user types is completed.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass

from bootc.cli.options import HELP_VERB, Command, Option

_PROGRAM = "bootc"
_HELP = Option(("-h", "--help"), "Print help.", default=False)
_VERSION = Option(("-V", "--version"), "Print the version.", default=False)


class Shell(enum.Enum):
    """A shell for which there is a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


@dataclass(frozen=True, slots=True)
class _Place:
    """A verb or a group, named by the words that lead to it.

    Attributes:
        at: The words, without aliases.
        below: The verbs below a group.
        options: The options that may follow the words.
        choices: The words to offer as an argument.
    """

    at: str
    below: tuple[Command, ...]
    options: tuple[Option, ...]
    choices: tuple[str, ...]

    def shown(self) -> list[str]:
        """Return the words to offer."""
        names = [command.name for command in self.below if not command.hidden]
        if self.below:
            names.append(HELP_VERB)
        flags = [flag for option in self.offered() for flag in option.flags]
        return [*names, *self.choices, *flags]

    def offered(self) -> list[Option]:
        """Return the options to offer."""
        return [option for option in self.options if not option.hidden]

    def steps(self) -> Iterator[tuple[list[str], str]]:
        """Yield the words that lead to another place, and that place."""
        for command in self.below:
            names = (command.name, *command.aliases)
            yield [f"{self.at} {name}" for name in names], f"{self.at} {command.name}"

    def valued(self) -> Iterator[tuple[list[str], tuple[str, ...]]]:
        """Yield the options that take a value, behind their place, and the values to offer."""
        for option in self.options:
            if option.default is not False:
                labels = [f"{self.at} {flag}" for flag in option.flags]
                yield labels, option.choices or option.offered


def script(shell: Shell, commands: tuple[Command, ...]) -> str:
    """Return the script for a shell that completes these commands."""
    top = _Place(_PROGRAM, commands, (_HELP, _VERSION), ())
    places = [top, *_places(commands)]
    return _SCRIPTS[shell](places)


def _places(commands: tuple[Command, ...]) -> Iterator[_Place]:
    """Yield each command before the commands below it."""
    pending = [(_PROGRAM, command) for command in reversed(commands)]
    while pending:
        above, command = pending.pop()
        at = f"{above} {command.name}"
        flags = tuple(option for option in command.options if option.flags[0].startswith("-"))
        choices = tuple(
            choice
            for option in command.options
            if not option.flags[0].startswith("-")
            for choice in option.choices or option.offered
        )
        yield _Place(at, command.commands, (*flags, _HELP), choices)
        pending.extend((at, below) for below in reversed(command.commands))


def _case(labels: list[str], body: str) -> str:
    quoted = " | ".join(f'"{label}"' for label in labels)
    return f"        {quoted}) {body} ;;\n"


def _sorting(places: list[_Place]) -> str:
    """Return cases of bash and zsh that find the place of a word."""
    found = ""
    for place in places:
        for labels, _ in place.valued():
            found += _case(labels, "skip=1")
        for labels, target in place.steps():
            found += _case(labels, f'at="{target}"')
    return found


def _values(places: list[_Place], offer: str, files: str) -> str:
    """Return cases of bash and zsh that offer the values of the option before the cursor."""
    found = ""
    for place in places:
        for labels, choices in place.valued():
            body = offer.format(" ".join(choices)) if choices else files
            found += _case(labels, f"{body}; return")
    return found


def _words(places: list[_Place]) -> str:
    found = ""
    for place in places:
        words = " ".join(place.shown())
        found += _case([place.at], f'offer="{words}"')
    return found


def _bash(places: list[_Place]) -> str:
    offer = 'COMPREPLY=($(compgen -W "{}" -- "$current"))'
    return f"""# bash completion for bootc
_bootc() {{
    local word skip= offer= current=$2 previous=$3 at=bootc
    # bash takes = for a word of its own.
    case "$previous" in
        =) previous=${{COMP_WORDS[COMP_CWORD - 2]}} ;;
    esac
    case "$current" in
        =) current= ;;
    esac
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD - 1}}"; do
        [ "$word" = = ] && continue
        [ -n "$skip" ] && {{ skip=; continue; }}
        case "$at $word" in
{_sorting(places)}        esac
    done
    COMPREPLY=()
    case "$at $previous" in
{_values(places, offer, ":")}    esac
    case "$at" in
{_words(places)}    esac
    COMPREPLY=($(compgen -W "$offer" -- "$current"))
}}
complete -o bashdefault -o default -F _bootc bootc
"""


def _zsh(places: list[_Place]) -> str:
    return f"""#compdef bootc
_bootc() {{
    local word skip= offer= previous=$words[CURRENT-1] at=bootc
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        [[ -n $skip ]] && {{ skip=; continue }}
        case "$at $word" in
{_sorting(places)}        esac
    done
    if [[ $words[CURRENT] = --*=* ]]; then
        previous=${{words[CURRENT]%%=*}}
        compset -P '*='
    fi
    case "$at $previous" in
{_values(places, "compadd -- {}", "_files")}    esac
    case "$at" in
{_words(places)}    esac
    compadd -- ${{=offer}} || _files
}}
if [[ $funcstack[1] = _bootc ]]; then
    _bootc "$@"
else
    compdef _bootc bootc
fi
"""


def _fish(places: list[_Place]) -> str:
    cases = ""
    lines = ""
    for place in places:
        for labels, _ in place.valued():
            cases += f"            case {_fish_words(labels)}\n                set skip 1\n"
        for labels, target in place.steps():
            cases += f"            case {_fish_words(labels)}\n                set at '{target}'\n"
        lines += "".join(_fish_lines(place))
    return f"""# fish completion for bootc
function __bootc_at
    set -l at bootc
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch "$at $word"
{cases}        end
    end
    test $at = $argv[1]
end
{lines}"""


def _fish_lines(place: _Place) -> Iterator[str]:
    start = f"complete -c bootc -n '__bootc_at \"{place.at}\"'"
    for command in place.below:
        if not command.hidden:
            yield f"{start} -f -a {command.name} -d {_fish_text(command.help)}\n"
    if place.below:
        yield f"{start} -f -a {HELP_VERB} -d 'Print the help of a command.'\n"
    if place.choices:
        yield f"{start} -f -a {_fish_text(' '.join(place.choices))}\n"
    for option in place.offered():
        flags = " ".join(
            f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags
        )
        value = ""
        if values := option.choices or option.offered:
            value = f" -x -a {_fish_text(' '.join(values))}"
        elif option.default is not False:
            value = " -r"
        yield f"{start} {flags}{value} -d {_fish_text(option.help)}\n"


def _fish_words(labels: list[str]) -> str:
    return " ".join(_fish_text(label) for label in labels)


def _fish_text(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


_SCRIPTS = {Shell.BASH: _bash, Shell.ZSH: _zsh, Shell.FISH: _fish}
