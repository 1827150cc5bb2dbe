"""``bootc usr-overlay``: make /usr writable until the next reboot."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option


def run(args: argparse.Namespace, context: Context) -> None:
    """Mount an overlay over /usr."""
    from bootc.deploy.host.usr_overlay import mount_usr_overlay

    mount_usr_overlay(context.sink, read_only=args.read_only)


_COMMAND = Command(
    name="usr-overlay",
    aliases=("usroverlay",),
    help="Make /usr writable until the next reboot.",
    options=(
        Option(
            ("--read-only",),
            "Mount the overlay read-only. A tool can mount it again read-write for itself.",
            default=False,
        ),
    ),
    run=run,
)

COMMANDS = (_COMMAND,)
