"""``bootc etc``: show local changes in /etc, decide about them, or undo them."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.cli.session import open_host, view_host
from bootc.printable import printable

if TYPE_CHECKING:
    from bootc.deploy.etc.local import LocalEtc
    from bootc.deploy.etc.merge import Choice
    from bootc.deploy.host.facts import Facts
    from bootc.deploy.host.session import HostSession
    from bootc.deploy.host.statedir import StateDir


def diff(args: argparse.Namespace, context: Context) -> None:
    """Print the local changes, the decisions, and the result of a merge at this moment."""
    from bootc.cli.render.etc import review_json, review_lines
    from bootc.cli.render.structured import render_json
    from bootc.deploy.etc.local import read_local_etc
    from bootc.deploy.etc.review import read_staged_etc, review
    from bootc.deploy.host.gather import gather

    with view_host(context.sink) as view, read_local_etc(view) as local:
        found = review(local, read_staged_etc(view, gather(view)))
    if args.json:
        context.write(render_json(review_json(found)) + "\n")
    else:
        context.write("".join(f"{line}\n" for line in review_lines(found)))


def keep(args: argparse.Namespace, context: Context) -> None:
    """Record that the local version of a path wins in a merge."""
    from bootc.deploy.etc.merge import Choice

    _decide(args, context, Choice.KEEP)


def take(args: argparse.Namespace, context: Context) -> None:
    """Record that the new image's version of a path wins in a merge."""
    from bootc.deploy.etc.merge import Choice

    _decide(args, context, Choice.TAKE)


def reset(args: argparse.Namespace, context: Context) -> None:
    """Restore the booted image's version of a path, and forget the decision about it."""
    from bootc.deploy.etc.decisions import etc_path
    from bootc.deploy.etc.review import ResetOutcome, forget
    from bootc.deploy.etc.review import reset as put_back

    path = etc_path(args.path)
    with _open(context) as (system, _, local), _state(system) as state:
        outcome = put_back(state, local, path)
        forgotten = forget(state, path)
    name = f"/etc/{printable(path)}"
    match outcome:
        case ResetOutcome.RESTORED:
            text = f"{name} is as the booted image has it."
        case ResetOutcome.REMOVED:
            text = f"{name} is removed: it was a local addition, the booted image does not have it."
        case ResetOutcome.UNCHANGED:
            text = f"{name} is as the booted image has it already."
    context.write(f"{text}\n")
    if forgotten:
        context.write(f"The decision about {name} is forgotten.\n")


def _decide(args: argparse.Namespace, context: Context, choice: Choice) -> None:
    from bootc.deploy.etc.decisions import etc_path
    from bootc.deploy.etc.review import decide, read_staged_etc

    path = etc_path(args.path)
    with _open(context) as (system, facts, local):
        trees = [local.pristine, local.current.tree]
        staged = read_staged_etc(system, facts)
        if staged is not None:
            trees.append(staged.etc)
        with _state(system) as state:
            changed = decide(state, trees, path, choice)
    effect = "stays as it is here" if choice.value == "keep" else "becomes what the new image has"
    already = "" if changed else " already"
    context.write(f"Decided{already}: /etc/{printable(path)} {effect} when an update is merged.\n")


@contextlib.contextmanager
def _open(context: Context) -> Iterator[tuple[HostSession, Facts, LocalEtc]]:
    """Open the host to change it; yield it, its facts and its ``/etc``."""
    from bootc.deploy.etc.local import read_local_etc
    from bootc.deploy.host.survey import survey

    with open_host(context.sink) as system:
        facts = survey(system, dry_run=False)
        with read_local_etc(system) as local:
            yield system, facts, local


def _state(system: HostSession) -> StateDir:
    from bootc.deploy.host.statedir import StateDir

    return StateDir.open(system.physical, system.booted.image_id)


_PATH = Option(("path",), "A path in /etc, absolute or relative to /etc.", metavar="PATH")

_COMMAND = Command(
    name="etc",
    help="Show local changes in /etc, decide about them, or undo them.",
    commands=(
        Command(
            name="diff",
            help="List local changes and decisions, and the result of a merge at this moment.",
            options=(Option(("--json",), "Print JSON.", default=False),),
            run=diff,
        ),
        Command(
            name="keep",
            help="Let the local version of a path win when an update is merged.",
            options=(_PATH,),
            run=keep,
        ),
        Command(
            name="take",
            help="Let the new image's version of a path win when an update is merged.",
            options=(_PATH,),
            run=take,
        ),
        Command(
            name="reset",
            help="Restore the booted image's version of a path in /etc immediately.",
            options=(_PATH,),
            run=reset,
        ),
    ),
)

COMMANDS = (_COMMAND,)
