"""``bootc internals uki``: the parts of a unified kernel image."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option


def extract(args: argparse.Namespace, context: Context) -> None:
    """Write the kernel and the initramfs of a UKI to files."""
    from bootc.boot.uki_unpack import unpack_uki
    from bootc.errors import doing
    from bootc.fs.dir import Dir, open_regular

    with (
        open(open_regular(args.path), "rb") as file,
        Dir.open(args.output) as output,
        doing(f"Reading {args.path}"),
    ):
        unpack_uki(file, output)


_COMMAND = Command(
    name="uki",
    help="Work on a unified kernel image.",
    commands=(
        Command(
            name="extract",
            help="Write the kernel and the initramfs to a directory named like the release.",
            options=(
                Option(("path",), "The unified kernel image.", "PATH"),
                Option(("output",), "Where the directory is created.", "OUTPUT"),
            ),
            run=extract,
        ),
    ),
)

COMMANDS = (_COMMAND,)
