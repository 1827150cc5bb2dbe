"""``bootc container ukify``: build the unified kernel image of an image's root."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option
from bootc.cli.verbs.container.digest import DUMPFILE, write_dumpfile_to
from bootc.cli.verbs.container.version import VERSION_OPTIONS, given_version

_CHOICES = ("v1", "v2", "v1-only")


def ukify(args: argparse.Namespace, context: Context) -> None:
    """Compute the digests of a root, and build the UKI that names them."""
    from bootc.build.uki import (
        DigestChoice,
        build_uki,
        composed_cmdline,
        output_of,
        shipped_kargs,
        uki_kernel,
    )
    from bootc.fs.imageroot import ImageRoot
    from bootc.oci.local import directory_tree

    version = given_version(args)
    options = args.ukify_arguments
    if options[:1] == ["--"]:
        options = options[1:]
    with ImageRoot.open(args.rootfs) as root:
        # What is wrong with the options need not wait for the digests.
        output_of(options, args.rootfs)
        kernel = uki_kernel(args.rootfs, root, args.kernel_dir)
        shipped = shipped_kargs(root)
        tree = directory_tree(root.dir).root
        line = composed_cmdline(
            shipped,
            tree,
            DigestChoice(args.erofs_version),
            kargs=args.karg,
            version=version,
            allow_missing_verity=args.allow_missing_verity,
        )
        if args.write_dumpfile_to is not None:
            write_dumpfile_to(args.write_dumpfile_to, tree, context)
        context.write_bytes(build_uki(args.rootfs, root, kernel, line, options))


COMMAND = Command(
    name="ukify",
    help="Build a unified kernel image that names the image of a root.",
    options=(
        Option(("--rootfs",), "The root (default: /).", metavar="DIR", default="/"),
        Option(
            ("--kernel-dir",),
            "The directory with vmlinuz and initramfs.img, named like the kernel's version "
            "(default: that of the root).",
            metavar="DIR",
        ),
        Option(
            ("--karg",), "Add a kernel argument; may be repeated.", metavar="ARGUMENT", default=()
        ),
        Option(
            ("--allow-missing-verity",),
            "Build a UKI that boots without fs-verity; it protects nothing.",
            default=False,
        ),
        Option(
            ("--erofs-version",),
            "The digests to name: v1 and then v2, v2, or v1-only (default: v1).",
            metavar="CHOICE",
            default="v1",
            choices=_CHOICES,
        ),
        *VERSION_OPTIONS,
        DUMPFILE,
        Option(
            ("ukify_arguments",),
            "Options for ukify, after --.",
            metavar="UKIFY-OPTION",
            remainder=True,
        ),
    ),
    run=ukify,
)
