"""``bootc container export``: the root of an image as a tar archive."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.cli.resultfile import STDOUT, result_file
from bootc.errors import UsageError

if TYPE_CHECKING:
    from bootc.fs.imageroot import ImageRoot

_FORMATS = ("tar",)


def export(args: argparse.Namespace, context: Context) -> None:
    """Write the root of an image as an archive."""
    from bootc.fs.imageroot import ImageRoot
    from bootc.fs.outline import Outline
    from bootc.oci.export import exported_tree, write_tar

    if args.output == STDOUT and context.stdout_is_terminal:
        raise UsageError("a terminal cannot show an archive", hint="name a file with --output")
    with ImageRoot.open(args.target) as image:
        copies = _kernel_in_boot(image) if args.kernel_in_boot else {}
        outline = Outline.read(image, xattrs=True)
        tree = exported_tree(
            outline.root, outline.read_content, labels=not args.disable_selinux, copies=copies
        )
        with result_file(args.output, context) as file:
            write_tar(tree, outline.open, file)


def _kernel_in_boot(image: ImageRoot) -> dict[str, str]:
    """Return the paths in /boot where installers look for the kernel and the initramfs."""
    from bootc.boot.unpacked_kernel import find_kernel

    kernel = find_kernel(image)
    if kernel is None or kernel.unified:
        return {}
    return {
        f"boot/vmlinuz-{kernel.version}": kernel.path,
        f"boot/initramfs-{kernel.version}.img": kernel.initramfs,
    }


COMMAND = Command(
    name="export",
    help="Write the root of an image as a tar archive.",
    options=(
        Option(("target",), "The root.", metavar="DIR"),
        Option(
            ("--format",),
            "The format of the archive: tar (the default).",
            metavar="FORMAT",
            default="tar",
            choices=_FORMATS,
        ),
        Option(
            ("-o", "--output"),
            "The archive (default: -, standard output).",
            metavar="FILE",
            default=STDOUT,
        ),
        Option(
            ("--kernel-in-boot",),
            "Put copies of kernel and initramfs into /boot.",
            default=False,
        ),
        Option(("--disable-selinux",), "Write no SELinux labels.", default=False),
    ),
    run=export,
)
