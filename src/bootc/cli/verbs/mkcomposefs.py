"""``mkcomposefs``: write an image of a directory or a dumpfile, like the C tool of that name.

Images, stored objects, output and exit codes are the same, messages are not. An image
appears only after the command has read its source to the end.

Source: ``mkcomposefs`` of libcomposefs 1.0.8.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.cli.streams import open_standard_input
from bootc.errors import Error, doing

if TYPE_CHECKING:
    from bootc.formats.libcomposefs.tree import CTree
    from bootc.fs.dir import Dir

_OPEN_SOURCE = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_NUMBER = re.compile(r"[ \t\n\v\f\r]*[+-]?[0-9]{1,19}\Z")
_MAX_THREADS = (1 << 31) - 1


def run(args: argparse.Namespace, context: Context) -> None:
    """Write the image, print its digest, or both."""
    from bootc.cli.resultfile import result_file
    from bootc.formats.digest import Algorithm
    from bootc.formats.libcomposefs.erofs import format_version, mkfs_erofs
    from bootc.formats.verity import verity_digest

    _check(args, context)
    tree = _read_dump(args.source) if args.from_file else _scan(args)
    version = format_version(tree.root, *_versions(args))
    image = mkfs_erofs(tree, version=version)
    if args.image is not None:
        with result_file(args.image, context) as file:
            file.write(image)
    if args.print_digest or args.print_digest_only:
        context.write(f"{verity_digest(image, Algorithm.SHA256)}\n")


def _check(args: argparse.Namespace, context: Context) -> None:
    if args.print_digest_only:
        if args.image is not None:
            raise Error("--print-digest-only writes no image", hint=f"leave out {args.image}")
    elif args.image is None:
        raise Error("the name of the image is missing", hint="- is standard output")
    if args.image == "-" and context.stdout_is_terminal:
        raise Error("a terminal cannot show an image", hint="redirect the output")
    if args.skip_xattrs and args.user_xattrs and not args.from_file:
        raise Error("--skip-xattrs and --user-xattrs exclude each other")


def _versions(args: argparse.Namespace) -> tuple[int, int]:
    """Return the lowest and the highest version; a lowest version alone is both."""
    low: int | None = args.min_version
    high: int | None = args.max_version
    if high is None:
        high = 1 if low is None else low
    return low or 0, high


def _read_dump(source: str) -> CTree:
    from bootc.formats.libcomposefs.dumpfile import parse_dumpfile

    is_stdin = source == "-"
    with (
        open_standard_input() if is_stdin else open(source, "rb") as lines,
        doing(f"Reading {'standard input' if is_stdin else source}"),
    ):
        return parse_dumpfile(lines)


def _scan(args: argparse.Namespace) -> CTree:
    from bootc.formats.digest import Algorithm
    from bootc.formats.libcomposefs.tree import CTree, Omissions, as_scanned
    from bootc.fs.dir import Dir
    from bootc.fs.tree_read import read_tree
    from bootc.repository.objects import Objects
    from bootc.repository.sink import DigestOnly

    with contextlib.ExitStack() as stack:
        # As in C, the source must not be a symlink.
        top = stack.enter_context(Dir(os.open(args.source, _OPEN_SOURCE), args.source))
        if args.digest_store is None:
            root = read_tree(top, DigestOnly(Algorithm.SHA256))
        else:
            store = stack.enter_context(_store(args.digest_store))
            objects = Objects(store, Algorithm.SHA256, secure=False, writable=True)
            root = read_tree(top, objects)
            objects.flush()
            store.sync()
    omit = Omissions(args.use_epoch, args.skip_devices, args.skip_xattrs, args.user_xattrs)
    as_scanned(root, omit)
    return CTree(root)


def _store(path: str) -> Dir:
    from bootc.fs.dir import Dir

    with doing("Opening the digest store"):
        os.makedirs(path, exist_ok=True)
        return Dir.open(path)


def _version(text: str) -> int:
    return _number(text, 0, 1)


def _threads(text: str) -> int:
    return _number(text, 1, _MAX_THREADS)


def _number(text: str, low: int, high: int) -> int:
    # As strtol(3) accepts it; int() accepts more.
    if not _NUMBER.match(text) or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number from {low} to {high}")
    return int(text)


_COMMAND = Command(
    name="mkcomposefs",
    help="Make a composefs image of a directory or a dump file.",
    options=(
        Option(("source",), "The directory, or the dump with --from-file.", metavar="SOURCE"),
        Option(("image",), "The file to write, or - for standard output.", "IMAGE", optional=True),
        Option(("--from-file",), "SOURCE is a dump file, or - for standard input.", default=False),
        Option(("--print-digest",), "Print the fs-verity digest of the image.", default=False),
        Option(("--print-digest-only",), "Print the digest, and write no image.", default=False),
        Option(("--use-epoch",), "Set all times to zero.", default=False),
        Option(("--skip-devices",), "Omit devices, including whiteouts.", default=False),
        Option(("--skip-xattrs",), "Omit extended attributes.", default=False),
        Option(("--user-xattrs",), "Keep only extended attributes named user.*.", default=False),
        Option(
            ("--min-version",), "Write this version of the format: 0 or 1.", "N", parse=_version
        ),
        Option(
            ("--max-version",), "The version allowed for whiteouts: 0 or 1.", "N", parse=_version
        ),
        Option(("--digest-store",), "Store the content of files in DIR.", metavar="DIR"),
        Option(("--threads",), "Has no effect.", "N", parse=_threads),
    ),
    run=run,
    like_getopt=True,
)

COMMANDS = (_COMMAND,)
