"""``bootc rollback``: the deployment before this one boots next."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context
from bootc.cli.session import APPLY, DRY_RUN, open_host


def run(args: argparse.Namespace, context: Context) -> None:
    """Exchange the order of booting, or exchange it back."""
    from bootc.deploy.commands import rollback
    from bootc.deploy.journal import Event, report_dropping, send

    with open_host(context.sink, looks_only=args.dry_run) as (system, facts):
        rollback(system, context.sink, dry_run=args.dry_run)
        if not args.dry_run:
            report_dropping(system.run, facts.booted.staged)
            send(Event.ROLLBACK, "Changed the order in which deployments boot")
    if args.apply and not args.dry_run:
        from bootc.deploy.reboot import reboot

        reboot()


_COMMAND = Command(
    name="rollback",
    help="Boot the previous deployment next, or undo that.",
    options=(APPLY, DRY_RUN),
    run=run,
)

COMMANDS = (_COMMAND,)
