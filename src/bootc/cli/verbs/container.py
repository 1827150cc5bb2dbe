"""``bootc container``: verbs for people who build images."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option


def compute_composefs_digest(args: argparse.Namespace, context: Context) -> None:
    """Print the deployment id an image would get, without storing anything."""
    from bootc.formats.imgref import ImageReference
    from bootc.oci.pull import compute_image_id
    from bootc.oci.source import open_source

    with open_source(ImageReference.parse(args.image)) as source:
        image_id = compute_image_id(source, sink=context.sink, bootable=not args.plain)
    context.write(f"{image_id.hex}\n")


COMMAND = Command(
    name="container",
    help="Commands for building images.",
    commands=(
        Command(
            name="compute-composefs-digest",
            help="Print the deployment id of an image without storing anything.",
            options=(
                Option(
                    ("image",),
                    "The image: oci:DIR:TAG, docker://HOST/REPO:TAG, or another skopeo transport.",
                    metavar="IMAGE",
                ),
                Option(
                    ("--plain",),
                    "The digest of the unmodified container tree, not of the bootable one.",
                    default=False,
                ),
            ),
            run=compute_composefs_digest,
        ),
    ),
)
