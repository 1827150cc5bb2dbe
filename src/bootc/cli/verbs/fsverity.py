"""``bootc internals fsverity``: the two ioctls of fs-verity, for one file."""

from __future__ import annotations

import argparse
import os

from bootc.cli.options import Command, Context, Option
from bootc.errors import doing


def measure(args: argparse.Namespace, context: Context) -> None:
    """Print the digest of a file that the kernel enforces."""
    from bootc.fs.dir import open_regular
    from bootc.kernel import fsverity

    with open(open_regular(args.path), "rb", buffering=0) as file, doing(f"Measuring {args.path}"):
        _, digest = fsverity.measure(file.fileno())
    context.write(f"{digest.hex()}\n")


def enable(args: argparse.Namespace, context: Context) -> None:
    """Make a file read-only permanently, with a digest of SHA-256."""
    from bootc.fs.dir import Dir, open_regular
    from bootc.kernel import fsverity
    from bootc.repository import sealing

    with (
        open(open_regular(args.path), "rb", buffering=0) as file,
        doing(f"Enabling fs-verity on {args.path}"),
    ):
        try:
            fsverity.enable(file.fileno(), fsverity.FS_VERITY_HASH_ALG_SHA256)
        except OSError as exc:
            if exc.errno not in sealing.UNSUPPORTED:
                raise
            with Dir.open(os.path.dirname(os.path.realpath(args.path))) as directory:
                raise sealing.without_verity(directory) from None


_PATH = Option(("path",), "The file.", "PATH")
_COMMAND = Command(
    name="fsverity",
    help="Enable fs-verity on a file, or print the digest of a file.",
    commands=(
        Command(
            name="measure",
            help="Print the digest that the kernel enforces.",
            options=(_PATH,),
            run=measure,
        ),
        Command(
            name="enable",
            help="Make a file read-only permanently, with SHA-256.",
            options=(_PATH,),
            run=enable,
        ),
    ),
)

COMMANDS = (_COMMAND,)
