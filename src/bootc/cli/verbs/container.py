"""``bootc container``: verbs for people who build images."""

from __future__ import annotations

import argparse
import io
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.errors import Error, UsageError, doing, one_line

if TYPE_CHECKING:
    from bootc.formats.tree import Directory
    from bootc.oci.pull import ImageTree
    from bootc.oci.seal import XattrMode

_XATTR_MODES = ("allowlist-only", "keep-user-xattrs")
_DEFAULT_TARGET = "/target"


def compute_composefs_digest(args: argparse.Namespace, context: Context) -> int:
    """Print the deployment id a directory or an image would get, without storing anything."""
    if args.explain is not None:
        if args.target != _DEFAULT_TARGET or args.write_dumpfile_to is not None:
            raise UsageError("--explain takes two names, and only --plain, --xattrs, --json")
        return _explain(args, context)
    if args.json:
        raise UsageError("--json is for --explain")
    from bootc.formats.digest import Algorithm
    from bootc.formats.erofs.writer import mkfs_erofs
    from bootc.formats.verity import verity_digest
    from bootc.oci.seal import XattrMode

    xattrs = XattrMode(args.xattrs)
    # A directory of such a name can be said with a slash in front: ./a:b
    if ":" in args.target and not args.target.startswith((".", "/")):
        root = _tree_of_image(args.target, context, bootable=not args.plain, xattrs=xattrs)
    else:
        root = _tree_of_directory(args.target, bootable=not args.plain, xattrs=xattrs)
    image_id = verity_digest(mkfs_erofs(root), Algorithm.SHA512)
    if args.write_dumpfile_to is not None:
        _write_dumpfile(args.write_dumpfile_to, root)
    context.write(f"{image_id.hex}\n")
    return 0


def _explain(args: argparse.Namespace, context: Context) -> int:
    """Print why two digests differ; return 0 if they do not, 1 if they do."""
    from bootc.cli.explain import ComparisonFailed, render_report_json, render_text
    from bootc.oci.explain import explain
    from bootc.oci.seal import XattrMode

    xattrs = XattrMode(args.xattrs)
    try:
        report = explain(*args.explain, bootable=not args.plain, xattrs=xattrs, sink=context.sink)
    except (Error, OSError) as exc:
        raise ComparisonFailed(one_line(exc)) from exc
    context.write(render_report_json(report) if args.json else render_text(report))
    return 0 if report.equal else 1


def _tree_of_image(
    reference: str, context: Context, *, bootable: bool, xattrs: XattrMode
) -> Directory:
    from bootc.formats.imgref import ImageReference
    from bootc.oci.pull import image_tree
    from bootc.oci.source import open_source

    with open_source(ImageReference.parse(reference)) as source:
        tree = image_tree(source, context.sink, bootable=bootable, xattrs=xattrs)
        if bootable:
            _check_ukis(tree)
        return tree.root


def _tree_of_directory(path: str, *, bootable: bool, xattrs: XattrMode) -> Directory:
    from bootc.fs.dir import Dir
    from bootc.oci.local import directory_tree

    with Dir.open(path) as directory:
        tree = directory_tree(directory, bootable=bootable, xattrs=xattrs)
        if bootable:
            _check_ukis(tree)
        return tree.root


def _check_ukis(tree: ImageTree) -> None:
    """Refuse what no installation would take: a kernel image that is sealed only in parts."""
    from bootc.boot.content import content_of
    from bootc.boot.discover import find_ukis
    from bootc.boot.uki import check_sealing

    for uki in find_ukis(tree.whole):
        check_sealing(uki, lambda leaf: io.BytesIO(tree.read_content(content_of(leaf))))


def _write_dumpfile(path: str, root: Directory) -> None:
    from bootc.formats.dumpfile import write_dumpfile

    with doing(f"Writing {path}"), open(path, "wb") as file:
        file.writelines(write_dumpfile(root))


_COMMAND = Command(
    name="container",
    help="Commands for building images.",
    commands=(
        Command(
            name="compute-composefs-digest",
            help="Print the deployment id of an image without storing anything.",
            options=(
                Option(
                    ("target",),
                    "A directory, or an image: oci:DIR:TAG, docker://HOST/REPO:TAG, … "
                    "(default: /target).",
                    metavar="PATH|IMAGE",
                    default=_DEFAULT_TARGET,
                    optional=True,
                ),
                Option(
                    ("--plain",),
                    "The digest of the unmodified container tree, not of the bootable one.",
                    default=False,
                ),
                Option(
                    ("--xattrs",),
                    "Which extended attributes are kept (default: allowlist-only).",
                    metavar="MODE",
                    default="allowlist-only",
                    choices=_XATTR_MODES,
                ),
                Option(
                    ("--write-dumpfile-to",),
                    "Write the tree the digest is computed of to a file, as a dumpfile.",
                    metavar="FILE",
                ),
                Option(
                    ("--explain",),
                    "Say why the digests of two directories, EROFS images, dumpfiles or images "
                    "differ.",
                    metavars=("A", "B"),
                ),
                Option(("--json",), "The explanation as JSON.", default=False),
            ),
            run=compute_composefs_digest,
        ),
    ),
)

COMMANDS = (_COMMAND,)
