"""``bootc addon``: list, add and remove add-ons of unified kernel images."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.cli.session import DRY_RUN, open_host, refuse_together, sink_of, view_host

if TYPE_CHECKING:
    from bootc.deploy.host.session import HostAccess
    from bootc.events import Sink


def show(args: argparse.Namespace, context: Context) -> None:
    """Print the add-ons of the machine."""
    from bootc.cli.render.addon import addon_lines, addons_json
    from bootc.cli.render.structured import render_json
    from bootc.deploy.addons import read_addons

    with view_host(context.sink) as view:
        found = read_addons(view)
    if args.json:
        context.write(render_json(addons_json(found)) + "\n")
    else:
        context.write("".join(f"{line}\n" for line in addon_lines(found)))


def add(args: argparse.Namespace, context: Context) -> None:
    """Add files to a deployment, or to all."""
    from bootc.deploy.addons import add_addons

    with _opened(args, context) as (system, sink):
        add_addons(
            system,
            args.file,
            sink,
            deployment=args.deployment,
            for_all=args.for_all,
            dry_run=args.dry_run,
        )


def remove(args: argparse.Namespace, context: Context) -> None:
    """Remove an add-on from a deployment, or from all."""
    from bootc.deploy.addons import remove_addon

    with _opened(args, context) as (system, sink):
        remove_addon(
            system,
            args.name,
            sink,
            deployment=args.deployment,
            for_all=args.for_all,
            dry_run=args.dry_run,
        )


@contextlib.contextmanager
def _opened(args: argparse.Namespace, context: Context) -> Iterator[tuple[HostAccess, Sink]]:
    given = vars(args)
    args.for_all = given["global"]
    refuse_together(args, "--global", "--deployment")
    sink = sink_of(args, context)
    if args.dry_run:
        with view_host(sink) as view:
            yield view, sink
        return
    with open_host(sink) as system:
        yield system, sink


_DEPLOYMENT = Option(
    ("--deployment",),
    "The deployment: its ID, at least the first six digits, or one of: booted, staged, rollback. "
    "By default the staged one, or the booted one if none is staged.",
    metavar="ID",
)
_GLOBAL = Option(
    ("--global",),
    "All deployments of the machine, those that are there already as well.",
    default=False,
)

_COMMAND = Command(
    name="addon",
    help="List, add and remove add-ons of unified kernel images: signed kernel arguments.",
    commands=(
        Command(
            name="list",
            help="List the add-ons of all deployments.",
            options=(Option(("--json",), "Print JSON.", default=False),),
            run=show,
        ),
        Command(
            name="add",
            help="Add add-ons to the deployment that boots next and to its successors.",
            options=(
                Option(
                    ("file",),
                    "A file NAME.addon.efi.",
                    metavar="FILE",
                    repeated=True,
                ),
                _DEPLOYMENT,
                _GLOBAL,
                DRY_RUN,
            ),
            run=add,
        ),
        Command(
            name="remove",
            help="Remove an add-on.",
            options=(
                Option(
                    ("name",),
                    "Its name, with or without .addon.efi.",
                    metavar="NAME",
                ),
                _DEPLOYMENT,
                _GLOBAL,
                DRY_RUN,
            ),
            run=remove,
        ),
    ),
)

COMMANDS = (_COMMAND,)
