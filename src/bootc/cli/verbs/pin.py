"""``bootc pin`` and ``bootc unpin``: keep a deployment whatever happens, or no longer."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option
from bootc.cli.session import DRY_RUN, open_host, sink_of, view_host


def pin(args: argparse.Namespace, context: Context) -> None:
    """Keep a deployment."""
    _set(args, context, pinned=True)


def unpin(args: argparse.Namespace, context: Context) -> None:
    """Keep a deployment no longer."""
    _set(args, context, pinned=False)


def _set(args: argparse.Namespace, context: Context, *, pinned: bool) -> None:
    from bootc.deploy.host.gather import gather
    from bootc.deploy.host.selection import find_deployment
    from bootc.deploy.journal import Event, send, subject
    from bootc.deploy.rollback import set_pin

    sink = sink_of(args, context)
    if args.dry_run:
        with view_host(sink) as view:
            deployment = find_deployment(gather(view), args.id)
            set_pin(view, deployment, sink, pinned=pinned, dry_run=True)
        return
    with open_host(sink) as (system, facts):
        deployment = find_deployment(facts, args.id)
        set_pin(system, deployment, sink, pinned=pinned)
        if facts.is_pinned(deployment) == pinned:
            return
        if pinned:
            send(Event.PINNED, f"Pinned deployment {deployment}", subject(deployment))
        else:
            send(Event.UNPINNED, f"Unpinned deployment {deployment}", subject(deployment))


_ID = Option(
    ("id",),
    "The deployment ID, at least its first six digits, or one of: booted, rollback.",
    metavar="ID",
)

_PIN = Command(
    name="pin",
    help="Keep a deployment through all updates and clean-ups.",
    options=(_ID, DRY_RUN),
    run=pin,
)
_UNPIN = Command(
    name="unpin",
    help="Stop keeping a pinned deployment.",
    options=(_ID, DRY_RUN),
    run=unpin,
)

COMMANDS = (_PIN, _UNPIN)
