"""``cfs oci`` verbs that read images and change nothing.

Source: composefs, "Commands".
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.cli.render.images import (
    container_image_json,
    container_images_json,
    container_images_table,
    layer_json,
)
from bootc.cli.render.structured import render_pretty_json
from bootc.cli.verbs.cfs.opening import opened
from bootc.errors import Error, UsageError

if TYPE_CHECKING:
    from bootc.formats.digest import Digest, OciDigest
    from bootc.formats.tree import Directory
    from bootc.repository.repository import Repository

_XATTR_MODES = ("allowlist-only", "keep-user-xattrs")


class NotToTerminal(Error):
    """A terminal cannot show the result."""


def images(args: argparse.Namespace, context: Context) -> None:
    """List tagged images."""
    from bootc.oci.stored import list_images
    from bootc.oci.tags import referrers

    with opened(args, context, writable=False) as repository:
        found = [
            (tag, image, len(referrers(repository, image.documents.manifest_digest)))
            for tag, image in list_images(repository)
        ]
    if args.json:
        context.write(render_pretty_json(container_images_json(found)))
    elif found:
        context.write(container_images_table(found))
    else:
        context.write("No images found\n")


def inspect(args: argparse.Namespace, context: Context) -> None:
    """Print the manifest and config of an image, and its EROFS images."""
    from bootc.oci.stored import find_image
    from bootc.oci.tags import referrers

    if args.manifest and args.config:
        raise UsageError("--manifest and --config exclude each other")
    with opened(args, context, writable=False) as repository:
        image = find_image(repository, args.image)
        referring = referrers(repository, image.documents.manifest_digest)
        version = default_version(args, repository)
    if args.manifest:
        context.write_bytes(image.documents.manifest_raw + b"\n")
    elif args.config:
        context.write_bytes(image.documents.config_raw + b"\n")
    else:
        context.write(render_pretty_json(container_image_json(image, referring, version)))


def layer(args: argparse.Namespace, context: Context) -> None:
    """Print a layer: its archive, its entries, or facts about it."""
    from bootc.oci.layers import dump_layer, layer_archive, layer_facts

    if args.json and args.dumpfile:
        raise UsageError("--json and --dumpfile exclude each other")
    if context.stdout_is_terminal and not (args.json or args.dumpfile):
        raise NotToTerminal(
            "a terminal cannot show a tar archive",
            hint="redirect the output, or give --json or --dumpfile",
        )
    with opened(args, context, writable=False) as repository:
        if args.json:
            context.write(render_pretty_json(layer_json(layer_facts(repository, args.diff_id))))
            return
        pieces = dump_layer if args.dumpfile else layer_archive
        for piece in pieces(repository, args.diff_id):
            context.write_bytes(piece)


def compute_id(args: argparse.Namespace, context: Context) -> None:
    """Print the id of the image that is made of a configuration's layers."""
    from bootc.oci.trees import image_id_of

    with opened(args, context, writable=False) as repository:
        version = default_version(args, repository)
        image_id = image_id_of(_tree(args, repository), repository.algorithm, version=version)
        context.write(f"{image_id}\n")


def dump(args: argparse.Namespace, context: Context) -> None:
    """Print the tree of an image as a dumpfile."""
    from bootc.formats.dumpfile import write_dumpfile

    with opened(args, context, writable=False) as repository:
        context.write_bytes(b"".join(write_dumpfile(_tree(args, repository))))


def _tree(args: argparse.Namespace, repository: Repository) -> Directory:
    from bootc.oci.names import XattrMode
    from bootc.oci.stored import digest_in, find_config
    from bootc.oci.trees import config_tree

    # The documents of a tag name the streams of the layers by their verity digests. "cfs oci fsck"
    # compares the layers.
    is_tag = digest_in(args.config) is None

    return config_tree(
        repository,
        find_config(repository, args.config, args.verity),
        bootable=args.bootable,
        xattrs=XattrMode(args.xattrs),
        trusted=is_tag or args.verity is not None,
    )


def requested_formats(args: argparse.Namespace) -> tuple[int, ...]:
    """Return the version of the image format that the user asked for, or nothing."""
    return () if args.erofs_version is None else (args.erofs_version,)


def default_version(args: argparse.Namespace, repository: Repository) -> int:
    """Return the version of the image format that the command uses."""
    asked: int | None = args.erofs_version
    return repository.metadata.effective_erofs_formats().default if asked is None else asked


def parse_object_id(text: str) -> Digest:
    """Parse the id of an object, a stream or an EROFS image."""
    from bootc.formats.digest import Digest, DigestError

    try:
        return Digest.from_hex(text)
    except DigestError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def parse_oci_digest(text: str) -> OciDigest:
    """Parse the digest of a manifest or of a layer."""
    from bootc.formats.digest import DigestError, OciDigest

    try:
        return OciDigest.parse(text)
    except DigestError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


IMAGE = Option(("image",), "The tag, or the digest of the manifest.", "IMAGE")
#: The configuration that a tree is made of.
CONFIG = (
    Option(("config",), "The tag of an image, or @ and the digest of its config.", "CONFIG"),
    Option(
        ("verity",),
        "The expected object of the config's stream.",
        "VERITY",
        parse=parse_object_id,
        optional=True,
    ),
)
_TREE = (
    *CONFIG,
    Option(("--bootable",), "Use the bootable tree, not the plain one.", default=False),
    Option(
        ("--xattrs",),
        "Which extended attributes are kept (default: allowlist-only).",
        "MODE",
        default="allowlist-only",
        choices=_XATTR_MODES,
    ),
)
COMMANDS: tuple[Command, ...] = (
    Command(
        name="images",
        help="List tagged images.",
        options=(Option(("--json",), "Print one JSON object.", default=False),),
        run=images,
    ),
    Command(
        name="inspect",
        help="Print the manifest and config of an image, and its EROFS images.",
        options=(
            IMAGE,
            Option(("--manifest",), "Print only the manifest, byte for byte.", default=False),
            Option(("--config",), "Print only the config, byte for byte.", default=False),
        ),
        run=inspect,
    ),
    Command(
        name="layer",
        help="Print the tar archive of a layer.",
        options=(
            Option(
                ("diff_id",),
                "The layer's digest in rootfs.diff_ids.",
                "DIFFID",
                parse=parse_oci_digest,
            ),
            Option(("--dumpfile",), "Print the entries of the layer, one per line.", default=False),
            Option(("--json",), "Print facts about the layer as one JSON object.", default=False),
        ),
        run=layer,
        aliases=("layers",),
    ),
    Command(
        name="compute-id",
        help="Print the digest of the EROFS image of stored layers.",
        options=_TREE,
        run=compute_id,
    ),
    Command(
        name="dump",
        help="Print the tree of an image as a dumpfile.",
        options=_TREE,
        run=dump,
    ),
)
