"""``bootc delete-deployment``: remove a deployment and what only it needs."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option
from bootc.cli.session import DRY_RUN, open_host, sink_of, view_host


def run(args: argparse.Namespace, context: Context) -> None:
    """Remove a deployment."""
    from bootc.deploy.rollback import delete_deployment

    sink = sink_of(args, context)
    if args.dry_run:
        with view_host(sink) as view:
            delete_deployment(view, args.id, sink, dry_run=True)
        return
    with open_host(sink) as system:
        delete_deployment(system, args.id, sink)


_COMMAND = Command(
    name="delete-deployment",
    help="Remove a deployment that is not booted.",
    options=(
        Option(
            ("id",),
            "The deployment ID, at least its first six digits, or one of: staged, rollback.",
            metavar="ID",
        ),
        DRY_RUN,
    ),
    run=run,
)

COMMANDS = (_COMMAND,)
