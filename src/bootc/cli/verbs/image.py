"""``bootc image``: the images of the deployments, and copies of them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.cli.session import QUIET, sink_of, view_host

if TYPE_CHECKING:
    from bootc.formats.imgref import ImageReference

_DEFAULT_TARGET = "containers-storage:localhost/bootc"
#: Types of upstream. There are no logically bound images here.
_ALL, _LOGICAL, _HOST = ("all", "logical", "host")


def show(args: argparse.Namespace, context: Context) -> None:
    """Print the images of the deployments."""
    from bootc.cli.render.hostimages import images_json, images_table
    from bootc.deploy.images import host_images

    with view_host(context.sink) as view:
        found = () if args.type == _LOGICAL else host_images(view)
    context.write(images_json(found) if args.format == "json" else images_table(found))


def copy_to_storage(args: argparse.Namespace, context: Context) -> None:
    """Copy the image of a deployment to a container storage or to another place."""
    from bootc.deploy.images import copy_image

    target = _target(args.target)
    sink = sink_of(args, context)
    with view_host(sink, lock=True) as view:
        digest = copy_image(view, args.source, target, sink)
    context.write(f"Copied: {target}\nDigest: {digest}\n")


def _target(text: str) -> ImageReference:
    from bootc.formats.imgref import ImageReference

    return ImageReference.parse(text)


COMMANDS = (
    Command(
        name="image",
        help="List the images of the deployments, and copy them.",
        commands=(
            Command(
                name="list",
                help="List the images of the deployments.",
                options=(
                    Option(
                        ("--type",),
                        "The type of the images. There are no logical ones.",
                        default=_ALL,
                        choices=(_ALL, _LOGICAL, _HOST),
                    ),
                    Option(
                        ("--format",),
                        "The format of the output.",
                        default="table",
                        choices=("table", "json"),
                    ),
                ),
                run=show,
            ),
            Command(
                name="copy-to-storage",
                help="Copy the image of a deployment to the container storage.",
                options=(
                    Option(
                        ("--source",),
                        "The image, by its name, or the deployment: its ID, or one of: booted, "
                        "staged, rollback. By default the booted one.",
                        metavar="IMAGE",
                    ),
                    Option(
                        ("--target",),
                        "Where to copy it to, with a transport, for example oci:DIRECTORY:TAG. "
                        f"By default {_DEFAULT_TARGET}.",
                        metavar="IMAGE",
                        default=_DEFAULT_TARGET,
                    ),
                    QUIET,
                ),
                run=copy_to_storage,
            ),
        ),
    ),
)
