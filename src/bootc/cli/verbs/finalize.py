"""``bootc composefs-finalize-staged``: what the shutdown runs to make an update the default."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context
from bootc.cli.session import open_host
from bootc.errors import Error, one_line


def run(args: argparse.Namespace, context: Context) -> None:
    """Merge /etc into the staged deployment and let it boot next."""
    from bootc.deploy.commands import finalize_staged
    from bootc.deploy.journal import Event, send, subject

    with open_host(context.sink) as (system, facts):
        try:
            finalized = finalize_staged(system, context.sink)
        except (Error, OSError) as exc:
            marker = facts.booted.staged
            about = subject(None if marker is None else marker.image_id)
            send(Event.FINALIZE_FAILED, f"The old system stays: {one_line(exc)}", about)
            raise
        if finalized is not None:
            send(Event.FINALIZED, f"Deployment {finalized} boots next", subject(finalized))


COMMAND = Command(
    name="composefs-finalize-staged",
    help="Make the staged deployment the one that boots next. Run at shutdown.",
    run=run,
)
