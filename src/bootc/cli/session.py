"""What verbs that change the running system have in common: options, and the way in."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bootc.cli.options import Context, Option
from bootc.cli.progress import messages_only
from bootc.errors import UsageError

if TYPE_CHECKING:
    from bootc.deploy.facts import Facts
    from bootc.deploy.system import System
    from bootc.events import Sink

APPLY = Option(("--apply",), "Reboot into the new deployment when all is done.", default=False)
DRY_RUN = Option(
    ("--dry-run",), "Say what would be done, step by step, and change nothing.", default=False
)
ETC_CONFLICT = Option(
    ("--etc-conflict",),
    "Where local changes in /etc and the image's exclude each other: fail (the default), "
    "keep-local or take-new.",
    metavar="MODE",
    choices=("fail", "keep-local", "take-new"),
)
NO_WAIT = Option(
    ("--no-wait",), "Fail at once if another command is at work, instead of waiting.", default=False
)
QUIET = Option(("--quiet",), "Show no progress.", default=False)


@contextlib.contextmanager
def open_host(
    sink: Sink, *, wait: bool = True, looks_only: bool = False
) -> Iterator[tuple[System, Facts]]:
    """Open the running system to change it, and say what is known of it at first.

    Args:
        sink: Told of what happens meanwhile.
        wait: Wait for another command to finish.
        looks_only: The command changes nothing, so that opening shall change nothing either.

    Raises:
        Error, OSError: as :func:`bootc.deploy.system.open_system`.
    """
    from bootc.deploy.gather import gather
    from bootc.deploy.journal import report_damage
    from bootc.deploy.system import open_system

    with open_system(sink, wait=wait, adopt=not looks_only) as system:
        facts = gather(system)
        report_damage(facts)
        yield system, facts


def sink_of(args: argparse.Namespace, context: Context) -> Sink:
    """Return where events go, as ``--quiet`` says."""
    return messages_only(context.sink) if args.quiet else context.sink


def refuse_together(args: argparse.Namespace, option: str, *others: str) -> None:
    """Refuse a command line that has an option and one of those it excludes.

    Raises:
        UsageError: it has.
    """
    given = vars(args)
    if not given[_name(option)]:
        return
    for other in others:
        if given[_name(other)]:
            raise UsageError(f"{option} cannot be used with {other}")


def _name(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")
