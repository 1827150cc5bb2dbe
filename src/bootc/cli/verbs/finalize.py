"""``bootc composefs-finalize-staged``: what the shutdown runs to make an update the default."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context
from bootc.cli.session import open_host
from bootc.errors import Error, one_line


def run(args: argparse.Namespace, context: Context) -> None:
    """Merge /etc into the staged deployment and let it boot next."""
    from bootc.deploy.finalize import finalize_staged
    from bootc.deploy.host.session import NotAllowed, NotBooted
    from bootc.deploy.journal import Event, send, subject

    staged = None
    try:
        with open_host(context.sink) as (system, facts):
            if facts.booted.staged is not None:
                staged = facts.booted.staged.image_id
            finalized = finalize_staged(system, context.sink)
    except (NotAllowed, NotBooted):
        raise
    except (Error, OSError, KeyboardInterrupt) as exc:
        # Also where the disks cannot be opened, so that nothing can be put on record there.
        reason = "interrupted" if isinstance(exc, KeyboardInterrupt) else one_line(exc)
        text = f"Finalizing failed, and bootc status tells what boots next: {reason}"
        send(Event.FINALIZE_FAILED, text, subject(staged))
        raise
    if finalized is not None:
        send(Event.FINALIZED, f"Deployment {finalized} boots next", subject(finalized))


_COMMAND = Command(
    name="composefs-finalize-staged",
    help="Make the staged deployment the default. The shutdown runs this command.",
    run=run,
)

COMMANDS = (_COMMAND,)
