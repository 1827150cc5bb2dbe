"""``cfs oci prepare-boot``: boot files for an image of a repository.

Source: composefs, "Commands" and "Writing entries".
"""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option
from bootc.cli.verbs.cfs.oci_inspect import CONFIG, default_version
from bootc.cli.verbs.cfs.opening import opened


def prepare(args: argparse.Namespace, context: Context) -> None:
    """Write the boot entry of an image, with its kernel and its state directories."""
    from bootc.deploy.prepare_boot import BootRequest, prepare_boot
    from bootc.oci.stored import digest_in, find_config, find_image
    from bootc.oci.trees import config_tree

    trusted = args.verity is not None
    with opened(args, context, writable=True) as repository:
        # The id that a user has of a stream must remain valid, so that stream is not rewritten.
        keeps = not trusted and digest_in(args.config) is None
        image = find_image(repository, args.config) if keeps else None
        config = find_config(repository, args.config, args.verity)
        prepare_boot(
            repository,
            config_tree(repository, config, bootable=False, trusted=trusted),
            args.bootdir,
            BootRequest(
                version=default_version(args, repository),
                optional=args.insecure or not repository.secure,
                entry_id=args.entry_id,
                arguments=args.cmdline,
            ),
            keep_for=image,
        )


def _entry_id(text: str) -> str:
    from bootc.boot.first_entry import NotAnEntry, check_entry_id

    try:
        check_entry_id(text)
    except NotAnEntry as exc:
        raise argparse.ArgumentTypeError(exc.message) from exc
    return text


def _argument(text: str) -> str:
    from bootc.formats.cmdline import CmdlineError, check

    try:
        check(text)
    except CmdlineError as exc:
        raise argparse.ArgumentTypeError(exc.message) from exc
    return text


COMMANDS = (
    Command(
        name="prepare-boot",
        help="Write boot files for an image of the repository.",
        options=(
            *CONFIG,
            Option(
                ("--bootdir",),
                "The directory for the boot files (default: /boot).",
                "DIR",
                default="/boot",
            ),
            Option(
                ("--entry-id",),
                "The name of the boot entry (default: that of the image, or the kernel version).",
                "ID",
                parse=_entry_id,
            ),
            Option(
                ("--cmdline",),
                "Add a kernel argument; may be repeated.",
                "ARG",
                default=(),
                parse=_argument,
                takes_empty=True,
            ),
        ),
        run=prepare,
    ),
)
