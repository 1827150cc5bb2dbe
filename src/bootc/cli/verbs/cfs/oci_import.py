"""``cfs oci import-layer`` and ``copy``: layers and images that do not come from a registry.

Source: composefs, "Commands" and "oci copy".
"""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option
from bootc.cli.render.images import object_line
from bootc.cli.streams import open_standard_input
from bootc.cli.verbs.cfs.oci_inspect import IMAGE, parse_oci_digest, requested_formats
from bootc.cli.verbs.cfs.opening import opened
from bootc.errors import Error, doing
from bootc.printable import printable


class NoZeroCopy(Error):
    """The user demands that nothing is copied."""


def import_layer(args: argparse.Namespace, context: Context) -> None:
    """Store a layer from standard input, and print the object of its stream."""
    from bootc.oci.names import layer_id
    from bootc.oci.unpack import split_layer
    from bootc.repository.links import new_ref_name

    name = None if args.name is None else new_ref_name(args.name, "a stream")
    with opened(args, context, writable=True) as repository:
        with doing("Reading standard input"), open_standard_input() as file:
            stream = split_layer(file, args.digest, repository.objects)
        content_id = layer_id(args.digest)
        written = repository.streams.write(content_id, stream)
        repository.streams.set_verified(content_id, written)
        if name is not None:
            repository.streams.set_ref(name, content_id)
        repository.sync()
    context.write(object_line(written))


def copy(args: argparse.Namespace, context: Context) -> None:
    """Copy an image from another repository, and print what it became."""
    from bootc.formats.imgref import ImageReference
    from bootc.oci.names import manifest_id
    from bootc.oci.pull import pull
    from bootc.oci.stored import find_image
    from bootc.oci.stored_source import StoredSource
    from bootc.oci.tags import require_new_tag

    if args.zerocopy:
        raise NoZeroCopy("a copy unpacks layers again", hint="leave out --zerocopy")
    tag = args.image if args.name is None else args.name
    other = argparse.Namespace(**{**vars(args), **_WITHOUT_CHOICE, "repo": vars(args)["from"]})
    with opened(other, context, writable=False, hint="check the path of --from") as origin:
        # The repository that a hint names is the one that lacks the image.
        image = find_image(origin, args.image)
        if image.config is None:
            raise Error(f"{args.image} is an artifact and not a container image")
        digest = image.documents.manifest_digest
        if args.name is None and args.image.removeprefix("@") == str(digest):
            tag = None
        else:
            require_new_tag(tag)
        with opened(args, context, writable=True) as repository:
            pulled = pull(
                repository,
                StoredSource(origin, image, ImageReference("oci", origin.dir.path)),
                context.sink,
                bootable=False,
                architecture=image.config.architecture,
                tag=tag,
                erofs_formats=requested_formats(args),
            )
            repository.sync()
            verity = repository.streams.digest_of(manifest_id(digest))
            context.write(
                f"Copied image {printable(args.image)}\n"
                f"Manifest digest: {pulled.manifest_digest}\n"
                f"Config digest: {pulled.config_digest}\n"
                f"Manifest verity: {verity}\n"
                f"Layers: {len(image.documents.diff_ids)}\n"
            )


#: The options of the group choose the repository to copy into.
_WITHOUT_CHOICE = {"user": False, "system": False, "hash": None}

COMMANDS = (
    Command(
        name="import-layer",
        help="Store a layer from standard input.",
        options=(
            Option(
                ("digest",),
                "The digest of the uncompressed layer.",
                "DIGEST",
                parse=parse_oci_digest,
            ),
            Option(("name",), "The name of the stream.", "NAME", optional=True),
        ),
        run=import_layer,
    ),
    Command(
        name="copy",
        help="Copy an image from another repository.",
        options=(
            IMAGE,
            Option(("--from",), "The other repository.", "PATH", required=True),
            Option(("--name",), "The tag (default: IMAGE).", "TAG"),
            Option(
                ("--zerocopy",), "Refused: a copy unpacks layers again.", default=False, hidden=True
            ),
        ),
        run=copy,
    ),
)
