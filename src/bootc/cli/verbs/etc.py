"""``bootc etc``: look at the local changes of /etc, decide about them, take them back."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bootc.cli.options import Command, Context, Option
from bootc.cli.session import open_host, view_host
from bootc.printable import quoted

if TYPE_CHECKING:
    from bootc.deploy.etc.local import LocalEtc
    from bootc.deploy.etc.merge import Choice
    from bootc.deploy.etc.review import MergeReview, Review
    from bootc.deploy.host.facts import Facts
    from bootc.deploy.host.session import HostSession
    from bootc.deploy.host.statedir import StateDir


def diff(args: argparse.Namespace, context: Context) -> None:
    """Print the local changes, the decisions, and how the next merge would end."""
    from bootc.cli.output import render_json
    from bootc.deploy.etc.local import read_local_etc
    from bootc.deploy.etc.review import read_staged_etc, review
    from bootc.deploy.host.gather import gather

    with view_host(context.sink) as view, read_local_etc(view) as local:
        found = review(local, read_staged_etc(view, gather(view)))
    if args.json:
        context.write(render_json(to_json(found)) + "\n")
    else:
        context.write("".join(f"{line}\n" for line in lines(found)))


def keep(args: argparse.Namespace, context: Context) -> None:
    """Record that the local version of a path stays."""
    from bootc.deploy.etc.merge import Choice

    _decide(args, context, Choice.KEEP)


def take(args: argparse.Namespace, context: Context) -> None:
    """Record that a path is to become what the next image has."""
    from bootc.deploy.etc.merge import Choice

    _decide(args, context, Choice.TAKE)


def reset(args: argparse.Namespace, context: Context) -> None:
    """Put the booted image's version of a path back, and forget what was decided about it."""
    from bootc.deploy.etc.decisions import etc_path
    from bootc.deploy.etc.review import Outcome, forget
    from bootc.deploy.etc.review import reset as put_back

    path = etc_path(args.path)
    with _open(context) as (system, _, local), _state(system) as state:
        outcome = put_back(state, local, path)
        forgotten = forget(state, path)
    name = f"/etc/{quoted(path)}"
    match outcome:
        case Outcome.RESTORED:
            text = f"{name} is as the booted image has it."
        case Outcome.REMOVED:
            text = f"{name} is removed: it was a local addition, the booted image does not have it."
        case Outcome.UNCHANGED:
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
    context.write(f"Decided{already}: /etc/{quoted(path)} {effect} when an update is merged.\n")


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


def lines(found: Review) -> Iterator[str]:
    """Yield the review for people."""
    from bootc.deploy.etc.text import report

    yield from report(found.changes)
    if not found.changes:
        yield "No local changes."
    if found.decisions:
        yield ""
        yield "Decided:"
        for path, choice in sorted(found.decisions.items()):
            yield f'  {choice.value} "{quoted(path)}"'
    if found.staged is not None:
        yield ""
        yield f"Merged into staged deployment {found.staged.deployment}:"
        yield from (f"  {line}" for line in _merge_lines(found.staged))


def _merge_lines(merge: MergeReview) -> Iterator[str]:

    for path in merge.shadowed:
        yield f'Local version stays, the new image\'s is not used: "{quoted(path)}"'
    unresolved = 0
    for conflict in merge.conflicts:
        if conflict.resolution is None:
            unresolved += 1
            yield f"Unmergable {conflict.reason}"
        else:
            yield f"Resolved ({merge.policy.value}) {conflict.reason}"
    if unresolved:
        yield "The update cannot be finalized: decide with bootc etc keep PATH or take PATH."
    else:
        yield "No conflict is unresolved."


def to_json(found: Review) -> dict[str, Any]:
    """Return the review as JSON."""
    from bootc.cli.output import name_value

    staged = found.staged
    return {
        "changes": [
            {**name_value("path", change.path), "change": change.kind.value.lower()}
            for change in found.changes
        ],
        "decisions": [
            {**name_value("path", path), "choice": choice.value}
            for path, choice in sorted(found.decisions.items())
        ],
        "staged": None if staged is None else _merge_to_json(staged),
    }


def _merge_to_json(merge: MergeReview) -> dict[str, Any]:
    from bootc.cli.output import name_value

    return {
        "deployment": merge.deployment.hex,
        "policy": merge.policy.value,
        "mergeable": all(conflict.resolution is not None for conflict in merge.conflicts),
        "conflicts": [
            {
                **name_value("path", conflict.path),
                "reason": conflict.reason,
                "resolution": None if conflict.resolution is None else conflict.resolution.value,
            }
            for conflict in merge.conflicts
        ],
        "shadowed": [name_value("path", path) for path in merge.shadowed],
    }


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
