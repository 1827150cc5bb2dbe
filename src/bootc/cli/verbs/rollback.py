"""``bootc rollback``: the deployment before this one boots next."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option
from bootc.cli.session import APPLY, DRY_RUN, open_host, sink_of, view_host


def run(args: argparse.Namespace, context: Context) -> None:
    """Exchange the order of booting, or exchange it back."""
    from bootc.deploy.rollback import rollback

    sink = sink_of(args, context)
    if args.dry_run:
        with view_host(sink) as view:
            rollback(view, sink, dry_run=True, allow_weaker=args.allow_weaker)
        return
    with open_host(sink) as system:
        rollback(system, sink, allow_weaker=args.allow_weaker)
    if args.apply:
        from bootc.deploy.host.services import reboot

        reboot()


_ALLOW_WEAKER = Option(
    ("--allow-weaker",),
    "Accept a deployment whose security version is below the minimum of the booted one.",
    default=False,
)
_COMMAND = Command(
    name="rollback",
    help="Boot the previous deployment next, or undo this.",
    options=(_ALLOW_WEAKER, APPLY, DRY_RUN),
    run=run,
)

COMMANDS = (_COMMAND,)
