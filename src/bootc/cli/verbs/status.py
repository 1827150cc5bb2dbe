"""``bootc status``: show the booted, the staged and the rollback deployment."""

from __future__ import annotations

import argparse
import dataclasses

from bootc.cli.options import Command, Context, Option
from bootc.errors import Error

_FORMATS = ("humanreadable", "yaml", "json")


def run(args: argparse.Namespace, context: Context) -> None:
    """Print the host. The default is text for people on a terminal, and YAML elsewhere."""
    from bootc.deploy.host.status import read_host

    if args.format_version not in (0, 1):
        raise Error(f"Unsupported format version: {args.format_version}")
    chosen = args.format or ("json" if args.json else None)
    if chosen is None:
        chosen = "humanreadable" if context.stdout_is_terminal else "yaml"
    host = read_host()
    if args.booted:
        host = dataclasses.replace(
            host, status=dataclasses.replace(host.status, staged=None, rollback=None)
        )
    match chosen:
        case "json":
            from bootc.cli.render.structured import render_json

            context.write(render_json(host.to_json()))
        case "yaml":
            from bootc.cli.render.structured import render_yaml

            context.write(render_yaml(host.to_json()))
        case _:
            from bootc.cli.render.status import status_text

            context.write(status_text(host, verbose=args.verbose))


_COMMAND = Command(
    name="status",
    help="Show the booted, the staged and the rollback deployment.",
    options=(
        Option(
            ("--format",),
            "The output format: humanreadable, yaml or json.",
            choices=_FORMATS,
            metavar="FORMAT",
        ),
        Option(("--json",), "Same as --format=json.", default=False, hidden=True),
        Option(
            ("--format-version",), "The version of the format: 0 or 1.", "N", default=1, parse=int
        ),
        Option(("--booted",), "Omit the staged and the rollback deployment.", default=False),
        Option(("-v", "--verbose"), "Show more about each deployment.", default=False),
    ),
    run=run,
)

COMMANDS = (_COMMAND,)
