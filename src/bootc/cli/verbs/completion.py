"""``bootc completion``: the script that lets a shell complete command lines of bootc."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option

_SHELLS = ("bash", "zsh", "fish")


def run(args: argparse.Namespace, context: Context) -> None:
    """Print the script for a shell."""
    from bootc.cli.completion import Shell, script

    context.write(script(Shell(args.shell), context.all_commands()))


_COMMAND = Command(
    name="completion",
    help="Print the script with which a shell completes command lines.",
    options=(Option(("shell",), "The shell: bash, zsh or fish.", "SHELL", choices=_SHELLS),),
    run=run,
)

COMMANDS = (_COMMAND,)
