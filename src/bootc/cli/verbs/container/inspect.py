"""``bootc container inspect``: show the kernel and the kernel arguments of an image's root."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, Any

from bootc.cli.options import Command, Context, Option
from bootc.errors import UsageError

if TYPE_CHECKING:
    from bootc.fs.imageroot import ImageRoot

_FORMATS = ("humanreadable", "yaml", "json")
_NONE = "<none>"


def inspect(args: argparse.Namespace, context: Context) -> None:
    """Print the kernel of an image and the kernel arguments that the image asks for."""
    from bootc.cli.render.structured import render_pretty_json, render_yaml
    from bootc.fs.imageroot import ImageRoot

    if args.json and args.format:
        raise UsageError("--json and --format exclude each other")
    with ImageRoot.open(args.rootfs) as root:
        found = _inspected(root)
    match "json" if args.json else args.format:
        case "json":
            context.write(render_pretty_json(found))
        case "yaml":
            context.write(render_yaml(found))
        case _:
            context.write(_human(found))


def _inspected(root: ImageRoot) -> dict[str, Any]:
    from bootc.boot.kargs import KARGS_D, read_kargs_d
    from bootc.boot.unpacked_kernel import find_kernel
    from bootc.fs.outline import Outline

    kernel = find_kernel(root)
    outline = Outline.read(root, (KARGS_D,))
    return {
        "kargs": read_kargs_d(outline.root, outline.read_content, os.uname().machine),
        "kernel": None
        if kernel is None
        else {
            "version": os.fsencode(kernel.version).decode("utf-8", "backslashreplace"),
            "unified": kernel.unified,
        },
    }


def _human(found: dict[str, Any]) -> str:
    from bootc.formats.shellquote import shell_quoted

    kernel = found["kernel"]
    rows = [("Kernel", shell_quoted(kernel["version"]) if kernel else _NONE)]
    if kernel:
        rows.append(("Type", "UKI" if kernel["unified"] else "vmlinuz"))
    kargs = " ".join(found["kargs"]) or _NONE
    rows.append(("Kargs", kargs if kargs.isprintable() else shell_quoted(kargs)))
    width = max(len(label) for label, _ in rows)
    return "".join(f"{label:>{width}}: {value}\n" for label, value in rows)


COMMAND = Command(
    name="inspect",
    help="Show the kernel of an image and the kernel arguments.",
    options=(
        Option(("--rootfs",), "The root to inspect (default: /).", metavar="DIR", default="/"),
        Option(("--json",), "The same as --format=json.", default=False),
        Option(
            ("--format",),
            "The output format: humanreadable, yaml or json (default: humanreadable).",
            metavar="FORMAT",
            choices=_FORMATS,
        ),
    ),
    run=inspect,
)
