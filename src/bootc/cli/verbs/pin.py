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
    from bootc.deploy.rollback import set_pin

    sink = sink_of(args, context)
    if args.dry_run:
        with view_host(sink) as view:
            set_pin(view, args.id, sink, pinned=pinned, dry_run=True)
        return
    with open_host(sink) as system:
        set_pin(system, args.id, sink, pinned=pinned)


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
