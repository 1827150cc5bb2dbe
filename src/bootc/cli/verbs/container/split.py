"""``bootc container split-kernel-and-rootfs``: move the kernel out of an image's root."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option


def split(args: argparse.Namespace, context: Context) -> None:
    """Move the kernel of an image into a directory."""
    from bootc.boot.split import split_kernel
    from bootc.fs.dir import Dir
    from bootc.fs.imageroot import ImageRoot
    from bootc.fs.parents import directories_made

    with (
        ImageRoot.open(args.rootfs) as image,
        directories_made(args.output),
        Dir.open(args.output) as output,
    ):
        split_kernel(image, output)


COMMAND = Command(
    name="split-kernel-and-rootfs",
    help="Move kernel and initramfs out of the root of an image.",
    options=(
        Option(("--rootfs",), "The root (default: /).", metavar="DIR", default="/"),
        Option(
            ("--output",),
            "The directory that receives the files, in DIR/VERSION.",
            metavar="DIR",
            required=True,
        ),
    ),
    run=split,
)
