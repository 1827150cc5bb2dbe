"""``composefs-info``: the content of an image, printed like the C tool of that name does it.

Output and exit codes are the same, messages are not. It also accepts every image that the
reader accepts, for example those of ``mkfs.erofs`` without a composefs header.

Source: ``composefs-info`` of libcomposefs 1.0.8.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.errors import Error, doing

if TYPE_CHECKING:
    from bootc.formats.digest import Digest
    from bootc.formats.libcomposefs.tree import CTree
    from bootc.fs.dir import Dir

_CHUNK_BYTES = 1 << 20
#: The errors of the kernel for a path that does not exist.
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)

Work = Callable[[argparse.Namespace, "Dir | None", Context], None]


def run(args: argparse.Namespace, context: Context) -> None:
    """Run the command that the command line names."""
    from bootc.fs.dir import Dir

    for name in args.filter:
        if "/" in name:
            raise Error(f"--filter {name}: the name of an entry has no slash")
    with contextlib.ExitStack() as stack:
        # As in C, it must exist even for commands that do not read it.
        basedir = None if args.basedir is None else stack.enter_context(Dir.open(args.basedir))
        _WORK[args.command](args, basedir, context)


def _list(args: argparse.Namespace, basedir: Dir | None, context: Context) -> None:
    from bootc.formats.libcomposefs.tree import list_lines

    for path in args.images:
        context.write_bytes(b"".join(list_lines(_read(path, args.filter).root)))


def _dump(args: argparse.Namespace, basedir: Dir | None, context: Context) -> None:
    from bootc.formats.libcomposefs.dumpfile import write_dumpfile

    for path in args.images:
        context.write_bytes(b"".join(write_dumpfile(_read(path, args.filter))))


def _objects(args: argparse.Namespace, basedir: Dir | None, context: Context) -> None:
    found = _all_objects(args)
    context.write_bytes(b"".join(path + b"\n" for path in found))


def _missing_objects(args: argparse.Namespace, basedir: Dir | None, context: Context) -> None:
    # Without a directory of objects, every object is missing.
    found = _all_objects(args)
    missing = [path for path in found if basedir is None or not _exists(path, basedir)]
    context.write_bytes(b"".join(path + b"\n" for path in missing))


def _measure(args: argparse.Namespace, basedir: Dir | None, context: Context) -> None:
    for path in args.images:
        context.write(f"{_digest_of(path)}\n")


def _read(path: str, names: list[str]) -> CTree:
    from bootc.formats.erofs.structs import MAX_IMAGE_BYTES
    from bootc.formats.libcomposefs.erofs import read_erofs
    from bootc.formats.libcomposefs.tree import only
    from bootc.fs.dir import open_regular, read_all

    with open(open_regular(path), "rb", buffering=0) as file:
        raw = read_all(file.fileno(), path, MAX_IMAGE_BYTES)
    with doing(f"Reading {path}"):
        tree = read_erofs(raw)
    return only(tree, [os.fsencode(name) for name in names]) if names else tree


def _all_objects(args: argparse.Namespace) -> list[bytes]:
    from bootc.formats.libcomposefs.tree import objects

    trees = (_read(path, args.filter) for path in args.images)
    return sorted(set[bytes]().union(*(objects(tree.root) for tree in trees)))


def _exists(path: bytes, basedir: Dir) -> bool:
    # Not beneath a Dir: an image may name any path, and the C tool opens it.
    try:
        os.stat(path, dir_fd=basedir.fileno())
    except OSError as exc:
        if exc.errno not in _ABSENT:
            raise
        return False
    return True


def _digest_of(path: str) -> Digest:
    """Return the digest of a file: the kernel's, or the one that it would compute."""
    from bootc.formats.digest import Algorithm, Digest
    from bootc.formats.verity import VerityHasher
    from bootc.fs.dir import open_regular
    from bootc.kernel import fsverity
    from bootc.repository import sealing

    with open(open_regular(path), "rb", buffering=0) as file, doing(f"Measuring {path}"):
        measured = sealing.measure(file.fileno(), fsverity)
        if measured is not None and measured[0] == Algorithm.SHA256.value:
            return Digest(Algorithm.SHA256, measured[1])
        hasher = VerityHasher(Algorithm.SHA256)
        while chunk := file.read(_CHUNK_BYTES):
            hasher.update(chunk)
        return hasher.digest()


_WORK: dict[str, Work] = {
    "ls": _list,
    "dump": _dump,
    "objects": _objects,
    "missing-objects": _missing_objects,
    "measure-file": _measure,
}

_COMMAND = Command(
    name="composefs-info",
    help="Print the contents of composefs images.",
    options=(
        Option(("command",), "The information to print.", choices=tuple(_WORK)),
        Option(("images",), "An image; any file for measure-file.", "IMAGE", repeated=True),
        Option(("--basedir",), "The object store for missing-objects.", "DIR"),
        Option(
            ("--filter",),
            "Use only this entry of the root directory; may be repeated.",
            "NAME",
            default=(),
        ),
    ),
    run=run,
    like_getopt=True,
)

COMMANDS = (_COMMAND,)
