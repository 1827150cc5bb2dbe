"""``bootc security-version``: how far this machine goes back, and the counter in its TPM."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context
from bootc.cli.session import view_host

if TYPE_CHECKING:
    from bootc.deploy.host.facts import Facts


def show(args: argparse.Namespace, context: Context) -> None:
    """Print the security version of the booted image, its minimum, and the counter."""
    from bootc.deploy.host.security_counter import read_counter

    facts = _facts(context)
    version = facts.version(facts.booted.image_id)
    stated = version is not None and version.stated
    context.write(f"Security version: {version.version if version and stated else 'not stated'}\n")
    if version is not None and stated:
        context.write(f"Minimum: {version.minimum}\n")
    counter = read_counter()
    context.write(f"Counter: {'none' if counter is None else counter}\n")


def enable_counter(args: argparse.Namespace, context: Context) -> None:
    """Define the counter, and let it rise to the minimum of the booted image."""
    from bootc.deploy.host.security_counter import enable_counter as run

    facts = _facts(context)
    _write_counter(facts, run(facts), context)


def raise_counter(args: argparse.Namespace, context: Context) -> None:
    """Let the counter rise to the minimum of the booted image."""
    from bootc.deploy.host.security_counter import raise_counter as run

    facts = _facts(context)
    value = run(facts)
    if value is None:
        context.write("This machine has no security counter.\n")
    else:
        _write_counter(facts, value, context)


def remove_counter(args: argparse.Namespace, context: Context) -> None:
    """Remove the counter."""
    from bootc.deploy.host.security_counter import remove_counter as run

    run()
    context.write("This machine has no security counter.\n")


def _facts(context: Context) -> Facts:
    from bootc.deploy.host.survey import survey

    with view_host(context.sink) as view:
        return survey(view, dry_run=True)


def _write_counter(facts: Facts, value: int, context: Context) -> None:
    from bootc.deploy.protection import refused_at

    context.write(
        f"The security counter is {value}: no image with a lower security version boots.\n"
    )
    for deployment in refused_at(facts, value):
        context.write(f"Deployment {deployment} does not boot any more.\n")


_COMMAND = Command(
    name="security-version",
    help="Show how far this machine goes back, and change the counter in its TPM.",
    commands=(
        Command(
            name="show",
            help="Print the security version of the booted image, its minimum, and the counter.",
            run=show,
        ),
        Command(
            name="enable-counter",
            help="Let the TPM keep the minimum, so that older images do not boot.",
            run=enable_counter,
        ),
        Command(
            name="raise-counter",
            help="Raise the counter to the minimum of the booted image. A unit does it at each "
            "boot.",
            run=raise_counter,
        ),
        Command(
            name="remove-counter",
            help="Remove the counter from the TPM, so that older images boot again.",
            run=remove_counter,
        ),
    ),
)

COMMANDS = (_COMMAND,)
