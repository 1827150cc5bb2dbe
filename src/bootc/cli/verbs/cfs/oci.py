"""``cfs oci``: container images of a repository, with the verbs of ``cfsctl oci``.

What ``cfsctl`` prints is printed here to the letter.

Source: composefs, "cfsctl", "Commands" and "OCI pull pipeline".
"""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option
from bootc.cli.output import render_pretty_json
from bootc.cli.verbs.cfs.opening import opened


def fsck(args: argparse.Namespace, context: Context) -> int:
    """Check the repository and its images; return 1 if something is wrong."""
    from bootc.oci.fsck import check_images
    from bootc.repository.fsck import check

    with opened(args, context, writable=False) as repository:
        checked = check(repository, context.sink)
        report = check_images(repository, checked, context.sink, tag=args.image)
    if args.json:
        context.write(render_pretty_json(report.to_json()))
        return 0
    context.write(report.to_text())
    return 0 if report.ok else 1


COMMAND = Command(
    name="oci",
    help="Work on container images in the repository.",
    commands=(
        Command(
            name="fsck",
            help="Check the repository, and that its images are complete.",
            options=(
                Option(("image",), "The only image to check, by its tag.", "TAG", optional=True),
                Option(("--json",), "As one JSON object; exit 0 whatever is found.", default=False),
            ),
            run=fsck,
        ),
    ),
)
