"""``bootc internals print-json-schema``: the schemas of documents that other programs read."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option

_DOCUMENTS = ("host", "progress")


def run(args: argparse.Namespace, context: Context) -> None:
    """Print a schema."""
    from importlib.resources import files

    schema = files("bootc.cli").joinpath("schemas", f"{args.of}.json")
    context.write(schema.read_text("utf-8"))


_COMMAND = Command(
    name="print-json-schema",
    help="Print the JSON Schema of the status, or of the progress of a pull.",
    options=(
        Option(
            ("--of",),
            "The document: host or progress.",
            metavar="DOCUMENT",
            choices=_DOCUMENTS,
            required=True,
        ),
    ),
    run=run,
)

COMMANDS = (_COMMAND,)
