"""``bootc internals uki``: the parts of a unified kernel image."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option


def extract(args: argparse.Namespace, context: Context) -> None:
    """Write the kernel and the initramfs of a UKI to files."""
    from bootc.boot.uki_unpack import unpack_uki
    from bootc.fs.dir import open_regular

    with open(open_regular(args.path), "rb") as file:
        unpack_uki(file, args.path, args.output)


_COMMAND = Command(
    name="uki",
    help="Work on a unified kernel image.",
    commands=(
        Command(
            name="extract",
            help="Write the kernel and the initramfs to a directory named like the release.",
            options=(
                Option(("path",), "The unified kernel image.", "PATH"),
                Option(
                    ("output",),
                    "Where the directory is created; made if it does not exist.",
                    "OUTPUT",
                ),
            ),
            run=extract,
        ),
    ),
)

COMMANDS = (_COMMAND,)
