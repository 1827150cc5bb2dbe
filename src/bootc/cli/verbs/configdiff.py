"""``bootc config-diff``: list the local changes in /etc in upstream's words."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context
from bootc.cli.session import view_host


def run(args: argparse.Namespace, context: Context) -> None:
    """Print a line for each local change."""
    from bootc.cli.render.etc import change_lines
    from bootc.deploy.etc.diff import local_changes
    from bootc.deploy.etc.local import read_local_etc

    with view_host(context.sink) as view, read_local_etc(view) as local:
        changes = local_changes(local.pristine, local.current.tree)
    context.write("".join(f"{line}\n" for line in change_lines(changes)))


_COMMAND = Command(
    name="config-diff",
    help="List the differences between /etc and the booted image's /etc.",
    hidden=True,
    run=run,
)

COMMANDS = (_COMMAND,)
