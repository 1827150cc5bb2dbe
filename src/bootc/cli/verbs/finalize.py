"""``bootc composefs-finalize-staged``: what the shutdown runs to make an update the default."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context


def run(args: argparse.Namespace, context: Context) -> None:
    """Merge /etc into the staged deployment and let it boot next."""
    from bootc.deploy.finalize import finalize_at_shutdown

    finalize_at_shutdown(context.sink)


_COMMAND = Command(
    name="composefs-finalize-staged",
    help="Make the staged deployment the default. The shutdown runs this command.",
    run=run,
)

COMMANDS = (_COMMAND,)
