"""``cfs init``, ``gc`` and ``fsck``, which work on a repository as a whole.

They print exactly what ``cfsctl`` prints. ``fsck --repair`` is bootc's own.

Source: composefs, "init, ensure, upgrade, reset", "Garbage collection" and "fsck".
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.cli.render.fsck import report_json, report_text
from bootc.cli.render.gc import collection_text
from bootc.cli.render.repair import repaired_json, repaired_text
from bootc.cli.render.structured import render_pretty_json
from bootc.cli.verbs.cfs.opening import (
    hints_for,
    opened,
    parent_and_name,
    parse_algorithm,
    parse_erofs_version,
    repository_path,
)
from bootc.errors import UsageError
from bootc.printable import first_lines, printable

if TYPE_CHECKING:
    from bootc.formats.digest import Algorithm
    from bootc.fs.dir import Dir
    from bootc.repository.legacy import InitOutcome
    from bootc.repository.repository import Repository

_log = logging.getLogger(__name__)


def init(args: argparse.Namespace, context: Context) -> None:
    """Create a repository, or check that it exists."""
    from bootc.fs.dir import Dir
    from bootc.fs.parents import directories_made
    from bootc.repository.legacy import InitOutcome
    from bootc.repository.sealing import VerityMissing

    path, shown = _wanted_path(args)
    above, name = parent_and_name(path)
    algorithm = _wanted_algorithm(args, is_there=os.path.lexists(path))
    with hints_for(args, args.path), directories_made(above, name), Dir.open(above) as parent:
        try:
            repository, outcome = _initialized(args, context, parent, name, algorithm)
        except VerityMissing as exc:
            if not args.require_verity:
                exc.hint = f"{exc.hint}; or give --insecure"
            raise
        with repository:
            repository.sync()
            label, secure = repository.algorithm.label, repository.secure
    match outcome:
        case InitOutcome.CREATED:
            context.write(f"Initialized composefs repository at {printable(shown)}\n")
            context.write(f"  algorithm: {label}\n")
            context.write(f"  verity:    {'required' if secure else 'not required (insecure)'}\n")
        case InitOutcome.UPGRADED:
            context.write(f"Upgraded legacy repository at {printable(shown)}\n")
        case InitOutcome.OPENED:
            kept = " (existing configuration preserved)" if args.ensure else ""
            context.write(f"Repository already initialized at {printable(shown)}{kept}\n")


def _wanted_path(args: argparse.Namespace) -> tuple[str, str]:
    """Return the path of the repository to create, and the path as the user wrote it.

    As in ``cfsctl``, PATH wins over the options of the group.
    """
    if args.path is None:
        path = repository_path(args)
        return path, args.repo or path
    return os.path.realpath(args.path), args.path


def _wanted_algorithm(args: argparse.Namespace, *, is_there: bool) -> Algorithm | None:
    """Return the algorithm that the options ask for, or None.

    ``--hash`` is about an existing repository. ``cfsctl`` ignores it when it creates one, and a
    script has to get the same repository from bootc.
    """
    wanted: Algorithm | None = args.algorithm
    if args.hash in (None, wanted):
        return wanted
    if wanted is not None:
        raise UsageError("--hash and --algorithm contradict each other")
    if is_there:
        found: Algorithm = args.hash
        return found
    _log.warning(
        "--hash has no effect on a new repository: give --algorithm %s after init", args.hash.label
    )
    return None


def _initialized(
    args: argparse.Namespace,
    context: Context,
    parent: Dir,
    name: str,
    algorithm: Algorithm | None,
) -> tuple[Repository, InitOutcome]:
    from bootc.formats.digest import Algorithm
    from bootc.repository import layout
    from bootc.repository.legacy import InitOutcome, ensure, needs_upgrade, reset_metadata
    from bootc.repository.metadata import DEFAULT_EROFS_FORMAT
    from bootc.repository.repository import Repository

    if args.insecure and args.require_verity:
        raise UsageError("--insecure and --require-verity exclude each other")
    if args.ensure and args.reset_metadata:
        raise UsageError("--ensure and --reset-metadata exclude each other")
    erofs_format = DEFAULT_EROFS_FORMAT if args.erofs_version is None else args.erofs_version
    secure = not args.insecure
    wait, sink = not args.no_wait, context.sink
    is_there = parent.exists(f"{name}/{layout.META}")
    if args.ensure:
        # An existing repository keeps its configuration; the defaults for a new one do not apply.
        known = is_there or needs_upgrade(parent, name)
        return ensure(
            parent,
            name=name,
            algorithm=algorithm,
            erofs_format=erofs_format,
            secure=args.require_verity if known else secure,
            wait=wait,
            sink=sink,
        )
    algorithm = algorithm or Algorithm.SHA512
    if args.reset_metadata and parent.exists(name):
        repository = reset_metadata(
            parent, name=name, algorithm=algorithm, erofs_format=erofs_format, secure=secure
        )
        return repository, InitOutcome.CREATED
    repository = Repository.create(
        parent,
        name=name,
        algorithm=algorithm,
        erofs_format=erofs_format,
        secure=secure,
        wait=wait,
        sink=sink,
    )
    return repository, InitOutcome.OPENED if is_there else InitOutcome.CREATED


def transaction(args: argparse.Namespace, context: Context) -> None:
    """Keep others from collecting garbage, until a signal ends the command."""
    import signal

    with opened(args, context, writable=False):
        while True:
            signal.pause()


def gc(args: argparse.Namespace, context: Context) -> None:
    """Remove images, streams and objects that no reference leads to."""
    from bootc.repository.gc import NotCollected, collect, dangling_links

    with opened(args, context, writable=not args.dry_run) as repository:
        report = collect(
            repository,
            roots=args.root,
            dry_run=args.dry_run,
            wait=not args.no_wait,
            sink=context.sink,
        )
        if args.dry_run:
            # cfsctl removes objects first, and counts the links that lead to no object then.
            images, streams = dangling_links(repository)
            report = dataclasses.replace(report, images_pruned=images, streams_pruned=streams)
    for warning in first_lines(report.warnings):
        _log.warning("%s", warning)
    if args.dry_run:
        context.write("Dry run (no files deleted):\n")
    context.write(collection_text(report))
    if report.failures:
        raise NotCollected(report.failures)


def fsck(args: argparse.Namespace, context: Context) -> int:
    """Check the repository; with ``--repair`` set damaged parts aside. Return 1 for findings."""
    from bootc.repository.fsck import check
    from bootc.repository.repair import repair

    with opened(args, context, writable=args.repair, adopt=True) as repository:
        report = check(repository, context.sink, metadata_only=args.metadata_only)
        if not args.json:
            context.write(report_text(report))
        repaired = None
        if args.repair and not report.ok:
            repaired = repair(repository, report, context.sink, wait=not args.no_wait)
    if args.json:
        found = report_json(report)
        if args.repair:
            found["repair"] = None if repaired is None else repaired_json(repaired)
        context.write(render_pretty_json(found))
        return 0
    if repaired is not None:
        context.write(repaired_text(repaired))
        return 1 if repaired.left else 0
    return 0 if report.ok else 1


COMMANDS: tuple[Command, ...] = (
    Command(
        name="init",
        help="Create a repository.",
        options=(
            Option(("path",), "The directory (default: the repository).", "PATH", optional=True),
            Option(
                ("--algorithm",),
                "The digest algorithm: fsverity-sha512-12 (default) or fsverity-sha256-12.",
                "ALG",
                offered=("sha256", "sha512"),
                parse=parse_algorithm,
            ),
            Option(("--insecure",), "Create the repository without fs-verity.", default=False),
            Option(
                ("--reset-metadata",),
                "Remove all images, streams and the configuration, and keep the objects.",
                default=False,
            ),
            Option(
                ("--ensure",),
                "Accept an existing repository with its configuration.",
                default=False,
            ),
            Option(
                ("--erofs-version",),
                "The default version of the image format: 0, 1 or 2.",
                "N",
                offered=("0", "1", "2"),
                parse=parse_erofs_version,
            ),
        ),
        run=init,
    ),
    Command(
        name="transaction",
        help="Keep others from collecting garbage, until a signal ends the command.",
        run=transaction,
    ),
    Command(
        name="gc",
        help="Remove images, streams and objects that no reference leads to.",
        options=(
            Option(
                ("--root", "-r"),
                "Also keep this image or stream; may be repeated.",
                "NAME",
                default=(),
            ),
            Option(
                ("--dry-run", "-n"),
                "Remove nothing, and print how many objects would be removed.",
                default=False,
            ),
        ),
        run=gc,
    ),
    Command(
        name="fsck",
        help="Check the repository.",
        options=(
            Option(
                ("--json",),
                "Print one JSON object, and exit with 0 even if there are findings.",
                default=False,
            ),
            Option(
                ("--metadata-only",),
                "Do not read the content of files.",
                default=False,
            ),
            Option(
                ("--repair",),
                "Set damaged objects aside, so the next pull of an image repairs it.",
                default=False,
            ),
        ),
        run=fsck,
    ),
)
