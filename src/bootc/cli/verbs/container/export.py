"""``bootc container export``: the root of an image as a tar archive."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.errors import UsageError, doing

if TYPE_CHECKING:
    from bootc.fs.imageroot import ImageRoot
    from bootc.oci.export import Writable

_FORMATS = ("tar",)


class _Stdout:
    """Takes an archive to standard output."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def write(self, data: bytes, /) -> None:
        self._context.write_bytes(data)


def export(args: argparse.Namespace, context: Context) -> None:
    """Write the root of an image as an archive."""
    from bootc.fs.imageroot import ImageRoot
    from bootc.fs.outline import Outline
    from bootc.oci.export import exported_tree, write_tar

    if args.output is None and context.stdout_is_terminal:
        raise UsageError("a terminal cannot show an archive", hint="name a file with --output")
    with ImageRoot.open(args.target) as image:
        copies = _kernel_in_boot(image) if args.kernel_in_boot else {}
        outline = Outline.read(image, xattrs=True)
        tree = exported_tree(
            outline.root, outline.read_content, labels=not args.disable_selinux, copies=copies
        )
        if args.output is None:
            write_tar(tree, outline.open, _Stdout(context))
            return
        with doing(f"Writing {args.output}"), _file(args.output) as file:
            write_tar(tree, outline.open, file)


def _kernel_in_boot(image: ImageRoot) -> dict[str, str]:
    """Return where kernel and initramfs go that installers look for in /boot."""
    from bootc.boot.rootkernel import find_kernel

    kernel = find_kernel(image)
    if kernel is None or kernel.unified:
        return {}
    return {
        f"boot/vmlinuz-{kernel.version}": kernel.path,
        f"boot/initramfs-{kernel.version}.img": kernel.initramfs,
    }


@contextmanager
def _file(path: str) -> Iterator[Writable]:
    """Open a file that gets its name when all is in it; a device or a pipe is written to."""
    from bootc.fs.atomic import Tmpfile
    from bootc.fs.dir import Dir

    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as file:
            yield file
        return
    directory, name = os.path.split(path)
    with Dir.open(directory or ".") as parent, Tmpfile.create(parent) as unnamed:
        yield unnamed
        os.fsync(unnamed.fileno())
        unnamed.replace(parent, name)


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
        Option(("-o", "--output"), "The archive (default: standard output).", metavar="FILE"),
        Option(
            ("--kernel-in-boot",),
            "Put copies of kernel and initramfs into /boot.",
            default=False,
        ),
        Option(("--disable-selinux",), "Write no SELinux labels.", default=False),
    ),
    run=export,
)
