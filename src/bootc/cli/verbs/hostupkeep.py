"""Verbs of ``bootc internals`` that check or clean up a host, or end what others began."""

from __future__ import annotations

import argparse
from typing import NoReturn

from bootc.cli.options import Command, Context, Option
from bootc.cli.session import open_host, view_host
from bootc.errors import Error
from bootc.printable import printable


class FoundDamage(Error):
    """A check of the host failed."""


class NoOstree(Error):
    """Only bootc's ostree backend can do what the command asks for."""


def cleanup(args: argparse.Namespace, context: Context) -> None:
    """Remove everything that no deployment needs."""
    from bootc.deploy.cleanup import collect_garbage

    with open_host(context.sink) as system:
        collect_garbage(system, context.sink, dry_run=False, repository=True)


def fsck(args: argparse.Namespace, context: Context) -> None:
    """Run the checks of the host that take no time."""
    from bootc.deploy.host.fsck import check_host

    with view_host(context.sink) as view:
        found = check_host(view)
    failed = 0
    for name, problem in found.items():
        failed += problem is not None
        context.write(f"ok: {name}\n" if problem is None else f"{name}: {printable(problem)}\n")
    if failed:
        raise FoundDamage(f"{failed} of {len(found)} checks failed")


def reboot(args: argparse.Namespace, context: Context) -> None:
    """Reboot the machine."""
    from bootc.deploy.host.services import reboot as reboot_machine

    reboot_machine()


def install_completion(args: argparse.Namespace, context: Context) -> NoReturn:
    """Refuse to complete an installation of ostree."""
    raise NoOstree(
        f"{args.sysroot}: bootc-install-completion completes an installation of ostree",
        hint="bootc install to-disk completes its installations itself",
    )


COMMANDS = (
    Command(
        name="cleanup",
        help="Remove everything that no deployment needs, also from the repository.",
        run=cleanup,
    ),
    Command(
        name="fsck",
        help="Check the running system quickly. cfs fsck checks the whole repository.",
        run=fsck,
    ),
    Command(name="reboot", help="Reboot the machine.", run=reboot),
    Command(
        name="bootc-install-completion",
        help="Refused: only installations of ostree need it.",
        options=(
            Option(("sysroot",), "Ignored.", "SYSROOT"),
            Option(("stateroot",), "Ignored.", "STATEROOT"),
        ),
        run=install_completion,
    ),
)
