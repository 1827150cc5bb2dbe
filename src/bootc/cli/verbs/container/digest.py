"""``bootc container compute-composefs-digest`` and ``…-from-storage``: compute deployment ids."""

from __future__ import annotations

import argparse
import io
import os
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.cli.resultfile import result_file
from bootc.errors import Error, UsageError, one_line

if TYPE_CHECKING:
    from bootc.formats.imgref import ImageReference
    from bootc.formats.tree import Directory
    from bootc.oci.names import XattrMode
    from bootc.oci.trees import ImageTree

_XATTR_MODES = ("allowlist-only", "keep-user-xattrs")
_DEFAULT_TARGET = "/target"
#: The storage of the host in a container, if the user mounts it there.
_HOST_STORAGE = "/run/host-container-storage"
_CONTAINERENV = "run/.containerenv"
_MAX_CONTAINERENV_BYTES = 1 << 20


class ComparisonFailed(Error):
    """The comparison failed; the trees are neither equal nor different, as with diff(1)."""

    exit_code = 2


def compute_composefs_digest(args: argparse.Namespace, context: Context) -> int:
    """Print the deployment id of a directory or an image, without storing anything."""
    if args.explain is not None:
        if args.target != _DEFAULT_TARGET or args.write_dumpfile_to is not None:
            raise UsageError(
                "--explain takes two names, and no other options than --plain, --xattrs and --json"
            )
        return _explain(args, context)
    if args.json:
        raise UsageError("--json needs --explain")
    from bootc.formats.imgref import ImageReference
    from bootc.oci.names import XattrMode

    xattrs = XattrMode(args.xattrs)
    # A directory whose name has a colon needs a slash: ./a:b
    if ":" in args.target and not args.target.startswith((".", "/")):
        reference = ImageReference.parse(args.target)
        root = _tree_of_image(reference, context, bootable=not args.plain, xattrs=xattrs)
    else:
        root = _tree_of_directory(args.target, bootable=not args.plain, xattrs=xattrs)
    _print_digest(root, args, context)
    return 0


def compute_from_storage(args: argparse.Namespace, context: Context) -> None:
    """Print the deployment id of an image in local container storage, usually the host's."""
    from bootc.formats.imgref import ImageReference
    from bootc.oci.names import XattrMode

    reference = ImageReference.of("containers-storage", args.image or _own_image())
    store = _HOST_STORAGE if os.path.isdir(_HOST_STORAGE) else None
    root = _tree_of_image(
        reference, context, bootable=True, xattrs=XattrMode.ALLOWLIST_ONLY, image_store=store
    )
    _print_digest(root, args, context)


def _own_image() -> str:
    """Return the id of the image that this container was made of."""
    from bootc.formats.containerenv import parse_containerenv
    from bootc.fs.imageroot import ImageRoot

    with ImageRoot.open("/") as root:
        data = root.read(_CONTAINERENV, _MAX_CONTAINERENV_BYTES) or b""
    image_id = parse_containerenv(data).get("imageid")
    if not image_id:
        raise Error(
            f"/{_CONTAINERENV} does not say which image this container was made of",
            hint="name an image, or run the container with podman run --privileged",
        )
    if not os.path.isdir(_HOST_STORAGE):
        raise Error(f"Must be readonly mount of host container store: {_HOST_STORAGE}")
    return image_id


def _print_digest(root: Directory, args: argparse.Namespace, context: Context) -> None:
    from bootc.oci.trees import image_id_of

    image_id = image_id_of(root)
    if args.write_dumpfile_to is not None:
        write_dumpfile_to(args.write_dumpfile_to, root, context)
    context.write(f"{image_id.hex}\n")


def _explain(args: argparse.Namespace, context: Context) -> int:
    """Print why two digests differ. Return 0 if they are equal, 1 if not."""
    from bootc.cli.render.explain import comparison_json, comparison_text
    from bootc.oci.explain import explain
    from bootc.oci.names import XattrMode

    xattrs = XattrMode(args.xattrs)
    try:
        report = explain(*args.explain, bootable=not args.plain, xattrs=xattrs, sink=context.sink)
    except (Error, OSError) as exc:
        raise ComparisonFailed(one_line(exc)) from exc
    context.write(comparison_json(report) if args.json else comparison_text(report))
    return 0 if report.equal else 1


def _tree_of_image(
    reference: ImageReference,
    context: Context,
    *,
    bootable: bool,
    xattrs: XattrMode,
    image_store: str | None = None,
) -> Directory:
    from bootc.oci.source import open_source
    from bootc.oci.trees import image_tree

    with open_source(reference, image_store=image_store) as source:
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
    """Refuse a UKI that names an image in only some of its profiles: no install accepts it."""
    from bootc.boot.image_content import content_of
    from bootc.boot.image_kernel import find_ukis
    from bootc.boot.uki import check_sealing

    for uki in find_ukis(tree.whole):
        check_sealing(uki, lambda leaf: io.BytesIO(tree.read_content(content_of(leaf))))


def write_dumpfile_to(path: str, root: Directory, context: Context) -> None:
    """Write a tree to a file as a dumpfile."""
    from bootc.formats.dumpfile import write_dumpfile

    with result_file(path, context) as file:
        for line in write_dumpfile(root):
            file.write(line)


#: An option of every verb that computes the digest of a tree.
DUMPFILE = Option(
    ("--write-dumpfile-to",),
    "Write the tree of the digest to a file, as a dumpfile; - is standard output.",
    metavar="FILE",
)

COMMAND = Command(
    name="compute-composefs-digest",
    help="Print the deployment id of an image without storing anything.",
    options=(
        Option(
            ("target",),
            "A directory, or an image: oci:DIR:TAG, docker://HOST/REPO:TAG, … (default: /target).",
            metavar="PATH|IMAGE",
            default=_DEFAULT_TARGET,
            optional=True,
        ),
        Option(
            ("--plain",),
            "Print the digest of the unmodified container tree, not of the bootable tree.",
            default=False,
        ),
        Option(
            ("--xattrs",),
            "Which extended attributes are kept (default: allowlist-only).",
            metavar="MODE",
            default="allowlist-only",
            choices=_XATTR_MODES,
        ),
        DUMPFILE,
        Option(
            ("--explain",),
            "Explain why the digests of two directories, EROFS images, dumpfiles or images differ.",
            metavars=("A", "B"),
        ),
        Option(("--json",), "Print the explanation as JSON.", default=False),
    ),
    run=compute_composefs_digest,
)

FROM_STORAGE = Command(
    name="compute-composefs-digest-from-storage",
    help="Print the deployment id of an image in local container storage.",
    options=(
        Option(
            ("image",),
            "The name or id of the image (default: the image of this container).",
            metavar="IMAGE",
            optional=True,
        ),
        DUMPFILE,
    ),
    run=compute_from_storage,
)
