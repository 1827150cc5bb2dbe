"""``bootc container lint``: check an image's root for errors and probable mistakes."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option

if TYPE_CHECKING:
    from bootc.lint.model import Lint


def run_lints(args: argparse.Namespace, context: Context) -> None:
    """Check the root of an image, or list the checks."""
    from bootc.fs.imageroot import ImageRoot
    from bootc.lint.model import SHOWN_ITEMS
    from bootc.lint.run import lint
    from bootc.lint.table import LINTS

    if args.list:
        context.write("".join(map(_listed, LINTS)))
        return
    with ImageRoot.open(args.rootfs) as root:
        lint(
            root,
            context.write,
            skip=args.skip,
            fatal_warnings=args.fatal_warnings,
            limit=None if args.no_truncate else SHOWN_ITEMS,
        )


def _listed(lint: Lint) -> str:
    """Return a lint as an item of a YAML list. A string of JSON is a string of YAML."""
    lines = [
        f"- name: {lint.name}",
        f"  type: {lint.kind.value}",
        f"  description: {json.dumps(lint.description, ensure_ascii=False)}",
    ]
    if lint.root_type is not None:
        lines.append(f"  root-type: {lint.root_type.value}")
    return "".join(f"{line}\n" for line in lines)


COMMAND = Command(
    name="lint",
    help="Check the root of an image for errors and probable mistakes.",
    options=(
        Option(("--rootfs",), "The root to check (default: /).", metavar="DIR", default="/"),
        Option(("--fatal-warnings",), "Treat warnings as failures.", default=False),
        Option(("--list",), "List the checks, and check nothing.", default=False),
        Option(("--skip",), "Skip a check; may be repeated.", metavar="NAME", default=()),
        Option(("--no-truncate",), "Print all items of lists.", default=False),
    ),
    run=run_lints,
)
