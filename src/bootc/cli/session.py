"""What verbs about the running system have in common: options, and the ways in."""

from __future__ import annotations

import argparse
import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bootc.cli.options import Context, Option
from bootc.cli.progress import messages_only
from bootc.errors import UsageError

if TYPE_CHECKING:
    from bootc.deploy.host.session import HostSession, HostView
    from bootc.events import Sink

ALLOW_WEAKER = Option(
    ("--allow-weaker",),
    "Accept an image that protects less than the booted deployment: one that tolerates missing "
    "fs-verity, has no unified kernel image, or has a security version below the minimum.",
    default=False,
)
APPLY = Option(("--apply",), "Reboot into the new deployment at the end.", default=False)
DRY_RUN = Option(("--dry-run",), "Print the steps, and change nothing.", default=False)
DRY_RUN_THAT_PULLS = Option(
    DRY_RUN.flags,
    "Print the steps. The command adds the image to the repository, and changes nothing else.",
    default=False,
)
ETC_CONFLICT = Option(
    ("--etc-conflict",),
    "How to resolve conflicts between local changes in /etc and the new image: fail (the "
    "default), keep-local or take-new.",
    metavar="MODE",
    choices=("fail", "keep-local", "take-new"),
)
NO_WAIT = Option(
    ("--no-wait",), "Fail at once if another command is running, instead of waiting.", default=False
)
QUIET = Option(("--quiet",), "Show no progress.", default=False)
#: The first descriptor that is no standard stream, and the last one that the kernel could have.
_FIRST_DESCRIPTOR, _LAST_DESCRIPTOR = 3, (1 << 32) - 1


def _descriptor(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text, re.ASCII) or int(text) > _LAST_DESCRIPTOR:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not the number of a descriptor")
    if int(text) < _FIRST_DESCRIPTOR:
        raise argparse.ArgumentTypeError(f"Cannot use fd {int(text)} for progress JSON")
    return int(text)


PROGRESS_FD = Option(
    ("--progress-fd",),
    "Write the progress of the pull to this open descriptor, as JSON lines.",
    metavar="N",
    parse=_descriptor,
)


@contextlib.contextmanager
def open_host(sink: Sink, *, wait: bool = True) -> Iterator[HostSession]:
    """Open the running system to change it.

    Args:
        sink: Told of what happens meanwhile.
        wait: Wait for another command to finish.

    Raises:
        Error, OSError: as :func:`bootc.deploy.host.session.open_host_session`.
    """
    from bootc.deploy.host.session import open_host_session

    with open_host_session(sink, wait=wait) as system:
        yield system


@contextlib.contextmanager
def view_host(
    sink: Sink,
    *,
    notes: bool = False,
    lock: bool = False,
    pulls: bool = False,
    wait: bool = True,
) -> Iterator[HostView]:
    """Open the running system to look at it, or to say what would be done to it.

    Raises:
        Error, OSError: as :func:`bootc.deploy.host.session.open_host_view`.
    """
    from bootc.deploy.host.session import open_host_view

    with open_host_view(sink, notes=notes, lock=lock, pulls=pulls, wait=wait) as view:
        yield view


def sink_of(args: argparse.Namespace, context: Context) -> Sink:
    """Return where events go, as ``--quiet``, ``--dry-run`` and ``--check`` say."""
    given = vars(args)
    if given.get("dry_run") or given.get("check"):
        context.messages_are_the_result()
    return messages_only(context.sink) if given.get("quiet") else context.sink


@contextlib.contextmanager
def reporting(args: argparse.Namespace, context: Context) -> Iterator[Sink]:
    """Yield the sink of :func:`sink_of`. With ``--progress-fd`` it writes JSON lines, too."""
    sink = sink_of(args, context)
    if args.progress_fd is None:
        yield sink
        return
    from bootc.cli.progressfd import ProgressLines

    with ProgressLines(args.progress_fd, sink) as lines:
        yield lines


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
