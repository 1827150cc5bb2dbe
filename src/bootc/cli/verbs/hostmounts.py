"""``bootc exec-in-host-mount-namespace``: a program that sees the mounts of the host."""

from __future__ import annotations

import argparse
from typing import NoReturn

from bootc.cli.options import Command, Context, Option


def run(args: argparse.Namespace, context: Context) -> NoReturn:
    """Replace this process by a program in the mount namespace of the first process."""
    from bootc.deploy.host.mount_namespace import exec_in_host_mounts

    exec_in_host_mounts(args.arguments)


_COMMAND = Command(
    name="exec-in-host-mount-namespace",
    help="Run a program that sees the mounts of the host.",
    options=(Option(("arguments",), "The program and its arguments.", "ARGUMENT", remainder=True),),
    run=run,
    hidden=True,
)

COMMANDS = (_COMMAND,)
