"""``bootc internals blockdev``: a block device and what is on it, as JSON."""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option
from bootc.errors import Error


class NoDevice(Error):
    """A file system is not on a block device."""


def ls(args: argparse.Namespace, context: Context) -> None:
    """Print a device and the devices on it."""
    from bootc.cli.render.structured import render_pretty_json
    from bootc.fs.lsblk import everything_about

    context.write(render_pretty_json(everything_about(args.device)))


def ls_filesystem(args: argparse.Namespace, context: Context) -> None:
    """Print the device of the file system that contains a directory."""
    from bootc.cli.render.structured import render_pretty_json
    from bootc.fs.dir import Dir
    from bootc.fs.lsblk import everything_about
    from bootc.fs.mounts import mount_of

    with Dir.open(args.path) as directory:
        mount = mount_of(directory)
    source = mount.source if mount is not None else ""
    if not source.startswith("/dev/"):
        raise NoDevice(f"the file system of {args.path} is not on a block device")
    context.write(render_pretty_json(everything_about(source)))


_COMMAND = Command(
    name="blockdev",
    help="Print block devices as JSON.",
    commands=(
        Command(
            name="ls",
            help="Print a device and the devices on it.",
            options=(Option(("device",), "The device.", "DEVICE"),),
            run=ls,
        ),
        Command(
            name="ls-filesystem",
            help="Print the device of the file system that contains a directory.",
            options=(Option(("path",), "The directory.", "PATH"),),
            run=ls_filesystem,
        ),
    ),
)

COMMANDS = (_COMMAND,)
