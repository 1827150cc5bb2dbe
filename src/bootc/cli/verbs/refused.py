"""Verbs of upstream that it refuses itself where the backend is composefs.

They exist so that a script gets upstream's reason and exit status, and not a usage error.
"""

from __future__ import annotations

import argparse
from typing import NoReturn

from bootc.cli.options import Command, Context, Option
from bootc.errors import Error


class NotOnComposefs(Error):
    """Only bootc's ostree backend can do what the command asks for."""


def edit(args: argparse.Namespace, context: Context) -> NoReturn:
    """Refuse to edit the specification of the host."""
    raise NotOnComposefs(
        "Edit is not yet supported for composefs backend",
        hint="bootc switch selects another image, bootc rollback another order",
    )


def set_options_for_source(args: argparse.Namespace, context: Context) -> NoReturn:
    """Refuse to change the kernel arguments of boot entries."""
    raise NotOnComposefs(
        "The composefs backend keeps no kernel arguments by source",
        hint="they come from /usr/lib/bootc/kargs.d of the image; bootc upgrade applies changes",
    )


def wipe_ostree(args: argparse.Namespace, context: Context) -> NoReturn:
    """Refuse to remove the deployments of ostree."""
    raise NotOnComposefs(
        "There is no state of ostree here: this program boots images of a composefs repository",
        hint="bootc internals composefs-gc removes deployments that nothing boots",
    )


COMMANDS = (
    Command(
        name="edit",
        help="Refused: only the ostree backend can edit the specification of the host.",
        options=(
            Option(("-f", "--filename"), "Ignored.", metavar="FILE", hidden=True),
            Option(("--quiet",), "Ignored.", default=False, hidden=True),
        ),
        run=edit,
        hidden=True,
    ),
    Command(
        name="loader-entries",
        help="Refused: only the ostree backend has kernel arguments by source.",
        commands=(
            Command(
                name="set-options-for-source",
                help="Refused: only the ostree backend has kernel arguments by source.",
                options=(
                    Option(("--source",), "Ignored.", "NAME", required=True, hidden=True),
                    Option(("--options",), "Ignored.", "OPTIONS", takes_empty=True, hidden=True),
                ),
                run=set_options_for_source,
            ),
        ),
        hidden=True,
    ),
    Command(
        name="state",
        help="Refused: only the ostree backend has state to wipe.",
        commands=(
            Command(
                name="wipe-ostree",
                help="Refused: only the ostree backend has state to wipe.",
                run=wipe_ostree,
            ),
        ),
        hidden=True,
    ),
)
