"""``bootc container lint``: check an image's root for errors and probable mistakes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option

if TYPE_CHECKING:
    from bootc.lint.model import Lint, LintFinding

_OF_THE_MACHINE = (
    "notice: this checks / of the running machine, which may take minutes; "
    "--rootfs DIR checks the root of an image"
)


def run_lints(args: argparse.Namespace, context: Context) -> None:
    """Check the root of an image, or list the checks."""
    from bootc.cli.render.lint import SHOWN_ITEMS, counts_text, finding_text, lint_text
    from bootc.deploy.host.boot_state import in_container
    from bootc.events import Notice
    from bootc.fs.imageroot import ImageRoot
    from bootc.lint.run import lint, require_passed
    from bootc.lint.table import LINTS

    if args.list:
        context.write("".join(map(lint_text, LINTS)))
        return
    limit = None if args.no_truncate else SHOWN_ITEMS

    def tell(one: Lint, finding: LintFinding) -> None:
        context.write(finding_text(one, finding, limit))

    with ImageRoot.open(args.rootfs) as root:
        if root.is_running and not in_container("/"):
            context.sink(Notice(_OF_THE_MACHINE))
        counts = lint(root, tell, skip=args.skip, sink=context.sink)
    context.write(counts_text(counts))
    require_passed(counts, fatal_warnings=args.fatal_warnings)


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
