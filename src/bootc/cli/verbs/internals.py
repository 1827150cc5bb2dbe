"""``bootc internals``: verbs for those who work on the system, not with it.

Of these the composefs tools are modules of their own (:mod:`bootc.cli.table`).
"""

from __future__ import annotations

import argparse
import json
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from bootc import __version__
from bootc.cli.options import Command, Context, Option
from bootc.cli.session import DRY_RUN, open_host, view_host
from bootc.errors import Error
from bootc.printable import printable

if TYPE_CHECKING:
    from bootc.deploy.cleanup import Collection
    from bootc.deploy.host.session import HostAccess

#: What is used when it is there: the name shown, and the distribution it comes from.
_LIBRARIES = {"zstandard": "zstandard", "rich": "rich"}


def features(args: argparse.Namespace, context: Context) -> None:
    """Print what this installation is made of and who hashes and stores."""
    import platform

    from bootc.formats import _speed
    from bootc.repository import store_batch

    found: dict[str, str | None] = {
        "bootc": __version__,
        "python": platform.python_version(),
        "extension": _speed.EXTENSION,
        "hashing": _speed.CHOICE.kernel,
        "hashing-reason": _speed.CHOICE.reason,
        "storing": store_batch.USED,
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
    """Remove what no deployment needs, or show the steps."""
    from bootc.cli.render.gc import collection_text
    from bootc.deploy.cleanup import CleanupIncomplete, collect_garbage

    dry_run = args.dry_run or args.assert_no_op
    if dry_run:
        context.messages_are_the_result()
        # A collection at work would remove meanwhile what this counts.
        opened: AbstractContextManager[HostAccess] = view_host(context.sink, lock=args.prune_repo)
    else:
        opened = open_host(context.sink)
    incomplete, collection = None, None
    with opened as system:
        if dry_run:
            context.write("Dry run (no files deleted)\n")
        try:
            collection = collect_garbage(
                system, context.sink, dry_run=dry_run, repository=args.prune_repo
            )
        except CleanupIncomplete as exc:
            incomplete, collection = exc, exc.collection
    if collection is not None and collection.counted is not None:
        context.write(collection_text(collection.counted))
    if incomplete is not None:
        raise incomplete
    if args.assert_no_op and collection is not None and collection.removes_anything:
        raise NotClean(f"--assert-no-op: GC would {planned_removal(collection)}")


def planned_removal(collection: Collection) -> str:
    """Return what a collection that removes something removes, in words."""
    if collection.removals:
        return str(collection.removals[0])
    counted = collection.counted
    assert counted is not None, "it removes something"
    return (
        f"remove {counted.objects_removed} object(s), "
        f"{counted.images_pruned} image symlink(s), {counted.streams_pruned} stream symlink(s)"
    )


class Unmergeable(Error):
    """Directories have conflicts, so nothing was merged."""


def dir_diff(args: argparse.Namespace, context: Context) -> None:
    """Print what a merge of three directories changes; with ``--merge`` do the merge."""
    from bootc.cli.render.etc import change_lines
    from bootc.deploy.etc.directories import merge_directories

    merge = merge_directories(args.pristine, args.current, args.new, apply=args.merge)
    reasons = (conflict.reason for conflict in merge.conflicts)
    context.write("".join(f"{line}\n" for line in change_lines(merge.changes, reasons)))
    if args.merge and merge.unresolved:
        raise Unmergeable(
            f"{args.new} is unchanged, because there are conflicts",
            hint=f"undo the changes in {args.current} that cannot be merged",
        )


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
            Option(
                ("--merge",), "Replace NEW by the result if there are no conflicts.", default=False
            ),
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
