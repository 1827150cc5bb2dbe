"""``bootc internals``: verbs for those who work on the system, not with it.

Of these the composefs tools are modules of their own (:mod:`bootc.cli.table`).
"""

from __future__ import annotations

import argparse
import contextlib
import json
from typing import TYPE_CHECKING

from bootc import __version__
from bootc.cli.options import Command, Context, Option
from bootc.cli.session import DRY_RUN, open_host, view_host
from bootc.errors import Error
from bootc.printable import printable

if TYPE_CHECKING:
    from bootc.deploy.cleanup import CleanupIncomplete
    from bootc.deploy.host.session import ReadableSystem
    from bootc.deploy.plan.steps import Plan
    from bootc.events import Sink
    from bootc.formats.tree import Directory
    from bootc.repository.gc import GcReport

#: What is used when it is there: the name shown, and the distribution it comes from.
_LIBRARIES = {"zstandard": "zstandard", "rich": "rich"}


def features(args: argparse.Namespace, context: Context) -> None:
    """Print what this installation is made of and which path its hashing takes."""
    import platform

    from bootc.formats import _speed

    found: dict[str, str | None] = {
        "bootc": __version__,
        "python": platform.python_version(),
        "extension": _speed.EXTENSION,
        "hashing": _speed.CHOICE.kernel,
        "hashing-reason": _speed.CHOICE.reason,
    }
    found |= {name: _version(library) for name, library in _LIBRARIES.items()}
    if args.json:
        context.write(json.dumps(found) + "\n")
        return
    for name, value in found.items():
        context.write(f"{name}: {printable(value or 'absent')}\n")


def _version(library: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


class NotClean(Error):
    """A collection that was to find nothing would remove something."""


def composefs_gc(args: argparse.Namespace, context: Context) -> None:
    """Remove what no deployment needs, or say what that would be."""
    from bootc.deploy.cleanup import plan_cleanup, preview
    from bootc.deploy.journal import Event, send

    dry_run = args.dry_run or args.assert_no_op
    report, incomplete = None, None
    if dry_run:
        context.messages_are_the_result()
        # Counting beside a collection at work would find what that is about to remove.
        with view_host(context.sink, lock=args.prune_repo) as view:
            context.write("Dry run (no files deleted)\n")
            _, plan, _ = plan_cleanup(view, repository=args.prune_repo)
            incomplete = _collect(view, args, context.sink, dry_run=True)
            report = preview(plan, view.repository)
            removal = planned_removal(plan, report)
    else:
        with open_host(context.sink) as (system, _):
            _, plan, _ = plan_cleanup(system, repository=args.prune_repo)
            # What cannot be counted the collection names when all else is done.
            with contextlib.suppress(Error, OSError):
                report = preview(plan, system.repository)
            removal = planned_removal(plan, report)
            incomplete = _collect(system, args, context.sink, dry_run=False)
            if removal is not None:
                send(Event.GARBAGE_COLLECTED, "Removed what no deployment needs")
    if report is not None:
        context.write(f"{report.to_text()}\n")
    if incomplete is not None:
        raise incomplete
    if args.assert_no_op and removal is not None:
        raise NotClean(f"--assert-no-op: GC would {removal}")


def _collect(
    system: ReadableSystem, args: argparse.Namespace, sink: Sink, *, dry_run: bool
) -> CleanupIncomplete | None:
    from bootc.deploy.cleanup import CleanupIncomplete, collect_garbage

    try:
        collect_garbage(system, sink, dry_run=dry_run, repository=args.prune_repo)
    except CleanupIncomplete as exc:
        return exc
    return None


def planned_removal(plan: Plan, report: GcReport | None) -> str | None:
    """Return what carrying out a plan would remove, in words, or None for nothing."""
    from bootc.deploy.plan.steps import CollectObjects, SetTag

    changes = [step for step in plan.steps if not isinstance(step, CollectObjects | SetTag)]
    if changes:
        return str(changes[0])
    if report is not None and (
        report.objects_removed or report.images_pruned or report.streams_pruned
    ):
        return (
            f"remove {report.objects_removed} object(s), "
            f"{report.images_pruned} image symlink(s), {report.streams_pruned} stream symlink(s)"
        )
    return None


def dir_diff(args: argparse.Namespace, context: Context) -> None:
    """Print what a merge of three directories would do, as one of /etc is done."""
    from bootc.deploy.etc.merge import merge_etc
    from bootc.deploy.etc.text import report

    merge = merge_etc(*(_read_directory(path) for path in (args.pristine, args.current, args.new)))
    reasons = (conflict.reason for conflict in merge.conflicts)
    context.write("".join(f"{line}\n" for line in report(merge.changes, reasons)))


def _read_directory(path: str) -> Directory:
    from bootc.errors import doing
    from bootc.formats.digest import Algorithm
    from bootc.fs.dir import Dir
    from bootc.fs.tree_read import read_tree
    from bootc.repository.sink import DigestOnly

    with doing(f"Reading {path}"), Dir.open(path) as directory:
        return read_tree(directory, DigestOnly(Algorithm.SHA512))


def erofs_dump(args: argparse.Namespace, context: Context) -> None:
    """Print every region of an EROFS image with its offset."""
    from bootc.formats.erofs.debug import describe_image
    from bootc.formats.erofs.structs import MAX_IMAGE_BYTES
    from bootc.fs.dir import open_regular, read_all

    with open(open_regular(args.image), "rb", buffering=0) as file:
        raw = read_all(file.fileno(), args.image, MAX_IMAGE_BYTES)
    for line in describe_image(raw):
        context.write(f"{line}\n")


COMMANDS = (
    Command(
        name="features",
        help="Print the parts of this installation, and how it computes digests.",
        options=(Option(("--json",), "Print one JSON object.", default=False),),
        run=features,
    ),
    Command(
        name="composefs-gc",
        help="Remove kernels, state and objects that no deployment needs.",
        options=(
            DRY_RUN,
            Option(
                ("--assert-no-op",),
                "Change nothing, and fail if there is something to remove.",
                default=False,
            ),
            Option(("--prune-repo",), "Also clean the repository.", default=False),
        ),
        run=composefs_gc,
    ),
    Command(
        name="dir-diff",
        help="Compare three directories as an update compares three versions of /etc.",
        options=(
            Option(("pristine",), "The original version.", metavar="PRISTINE"),
            Option(("current",), "The local version.", metavar="CURRENT"),
            Option(("new",), "The new version.", metavar="NEW"),
        ),
        run=dir_diff,
    ),
    Command(
        name="erofs-dump",
        help="Print the layout of an EROFS image: all its regions with their offsets.",
        options=(Option(("image",), "The image.", metavar="IMAGE"),),
        run=erofs_dump,
    ),
)
