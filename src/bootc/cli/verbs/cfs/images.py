"""``cfs`` verbs for images: create, list, inspect and mount them.

The verbs print exactly what ``cfsctl`` prints. Promises:

- A verb that stores something prints its result after all of it is on the disk.
- The image of a directory is the same that ``bootc container compute-composefs-digest`` and a
  pull compute.

Source: composefs, "cfsctl", "Commands" and "Images and stream references".
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.cli.render import images
from bootc.cli.render.structured import render_pretty_json
from bootc.cli.streams import open_standard_input
from bootc.cli.verbs.cfs import mounting
from bootc.cli.verbs.cfs.opening import algorithm_without_repository, opened
from bootc.errors import Error, doing

if TYPE_CHECKING:
    from bootc.formats.digest import Digest
    from bootc.formats.tree import Directory, Node
    from bootc.oci.names import XattrMode
    from bootc.repository.repository import Repository
    from bootc.repository.sink import ObjectSink

#: The format of images that no repository stores. The formats of a repository do not count.
_VERSION_WITHOUT_REPOSITORY = 1


class NotInImage(Error):
    """An image has no file of this name, or the file has no content."""


def list_images(args: argparse.Namespace, context: Context) -> None:
    """List the images that have a name."""
    with opened(args, context, writable=False) as repository:
        named = sorted(repository.images.refs().items())
    if args.json:
        context.write(render_pretty_json(images.named_images_json(named)))
    elif not named:
        context.write("No images found\n")
    else:
        context.write(images.named_images_table(named, full=args.no_trunc))


def image_objects(args: argparse.Namespace, context: Context) -> None:
    """Print the objects that hold the content of an image's files."""
    from bootc.repository.content import objects_of

    with opened(args, context, writable=False) as repository:
        objects = objects_of(repository.objects, repository.images.resolve(args.name))
    context.write("".join(sorted(images.object_line(digest) for digest in objects)))


def dump_files(args: argparse.Namespace, context: Context) -> None:
    """Print the entries of some files of an image."""
    from bootc.formats.dumpfile import write_dumpfile
    from bootc.repository.content import read_image_tree

    with opened(args, context, writable=False) as repository:
        root = read_image_tree(repository.objects, repository.images.resolve(args.image))
    lines: list[bytes] = []
    for file in args.files:
        path = os.fsencode(file)
        node = root.lookup(path)
        if node is None:
            raise NotInImage(f"the image {args.image} has no {file}")
        if args.backing_path_only:
            lines.append(path + b" " + _backing_path(node, file) + b"\n")
        else:
            names = [name for name in path.split(b"/") if name]
            lines += write_dumpfile(root, top=b"/" + b"/".join(names))
    context.write_bytes(b"".join(lines))


def _backing_path(node: Node, file: str) -> bytes:
    """Return the path, below the objects, of the content of a file."""
    from bootc.formats.tree import Directory, External, Unverified

    if isinstance(node, Directory):
        raise NotInImage(f"{file} is a directory, which has no content")
    match node.content:
        case External() as content:
            return content.object_path
        case Unverified(path):
            return path
        case _:
            return b"inline"


def create_image(args: argparse.Namespace, context: Context) -> None:
    """Store the files of a directory, and an image of it."""
    from bootc.formats.erofs.writer import mkfs_erofs
    from bootc.repository.links import new_ref_name

    name = None if args.name is None else new_ref_name(args.name, "an image")
    with opened(args, context, writable=True) as repository:
        root = _tree(args, bootable=args.bootable, xattrs=args.xattrs, objects=repository.objects)
        with doing(f"Making an image of {args.path}"):
            made = [
                repository.images.add(mkfs_erofs(root, version=version))
                for version in _versions(args, repository)
            ]
        if name is not None:
            repository.images.set_ref(name, made[0])
        repository.sync()
    context.write(images.object_line(made[0]))


def _versions(args: argparse.Namespace, repository: Repository) -> tuple[int, ...]:
    if args.erofs_version is not None:
        return (args.erofs_version,)
    return repository.metadata.effective_erofs_formats().all


def compute_id(args: argparse.Namespace, context: Context) -> None:
    """Print the digest of the image of a directory, without storing anything."""
    digest, _ = _image_id(args, bootable=args.bootable, xattrs=args.xattrs)
    context.write(f"{digest}\n")


def compute_karg(args: argparse.Namespace, context: Context) -> None:
    """Print the kernel argument for the image of a directory, without storing anything."""
    from bootc.formats.cmdline import composefs_karg
    from bootc.oci.names import XattrMode

    digest, version = _image_id(args, bootable=True, xattrs=XattrMode.ALLOWLIST_ONLY)
    # Versions 0 and 1 share a layout, and the argument calls both v1.
    named = "" if version == 2 else "v1"
    argument = composefs_karg(digest.hex, optional=args.insecure, version=named)
    context.write(f"{argument}\n")


def create_dumpfile(args: argparse.Namespace, context: Context) -> None:
    """Print the tree of the image of a directory as a dumpfile."""
    from bootc.formats.dumpfile import write_dumpfile
    from bootc.repository.sink import DigestOnly

    objects = DigestOnly(algorithm_without_repository(args))
    root = _tree(args, bootable=args.bootable, xattrs=args.xattrs, objects=objects)
    for line in write_dumpfile(root):
        context.write_bytes(line)


def _image_id(args: argparse.Namespace, *, bootable: bool, xattrs: XattrMode) -> tuple[Digest, int]:
    """Return the digest of the image of a directory, and the image's version."""
    from bootc.oci.trees import image_id_of
    from bootc.repository.sink import DigestOnly

    algorithm = algorithm_without_repository(args)
    version: int = _VERSION_WITHOUT_REPOSITORY
    if args.erofs_version is not None:
        version = args.erofs_version
    root = _tree(args, bootable=bootable, xattrs=xattrs, objects=DigestOnly(algorithm))
    with doing(f"Making an image of {args.path}"):
        return image_id_of(root, algorithm, version=version), version


def _tree(
    args: argparse.Namespace, *, bootable: bool, xattrs: XattrMode, objects: ObjectSink
) -> Directory:
    from bootc.fs.dir import Dir
    from bootc.oci.local import directory_tree

    with Dir.open(args.path) as directory:
        return directory_tree(
            directory,
            bootable=bootable,
            xattrs=xattrs,
            as_container=not args.no_propagate_usr_to_root,
            objects=objects,
        ).root


def import_image(args: argparse.Namespace, context: Context) -> None:
    """Store an image from standard input."""
    from bootc.formats.erofs.image import InvalidImage
    from bootc.formats.erofs.structs import MAX_IMAGE_BYTES
    from bootc.repository.imagecheck import check_image
    from bootc.repository.links import new_ref_name

    name = new_ref_name(args.name, "an image")
    with opened(args, context, writable=True) as repository:
        with doing("Reading standard input"), open_standard_input() as file:
            data = file.read(MAX_IMAGE_BYTES + 1)
            if len(data) > MAX_IMAGE_BYTES:
                raise InvalidImage(MAX_IMAGE_BYTES, "larger than any image")
            # A garbage collection stops at an image that it cannot parse.
            check_image(data)
        digest = repository.images.add(data)
        repository.images.set_ref(name, digest)
        repository.sync()
    context.write(images.object_line(digest))


def mount(args: argparse.Namespace, context: Context) -> None:
    """Mount an image."""
    mounting.check_options(args)
    with opened(args, context, writable=False) as repository:
        image = repository.images.resolve(args.name)
        mounting.mount_at(args, repository, image, args.mountpoint)


def cat(args: argparse.Namespace, context: Context) -> None:
    """Print the original bytes of a stream."""
    from bootc.formats.splitstream import StreamReader
    from bootc.repository.content import check_object, object_chunks
    from bootc.repository.links import is_entry_name, is_ref_name

    if not is_ref_name(args.name):
        raise Error(f"{args.name!r:.200} cannot name a stream")
    with opened(args, context, writable=False) as repository:
        content_id = repository.streams.resolve(args.name)
        if not is_entry_name(content_id):
            raise Error(f"{args.name!r:.200} cannot name a stream")
        data = repository.streams.read(content_id)
        with doing(f"Reading stream {content_id}"):
            for chunk in StreamReader(data).chunks():
                if isinstance(chunk, bytes):
                    context.write_bytes(chunk)
                    continue
                # Check the object first: no damaged byte may be printed.
                check_object(repository.objects, chunk)
                for piece in object_chunks(repository.objects, chunk):
                    context.write_bytes(piece)


def _xattr_mode(text: str) -> XattrMode:
    from bootc.oci.names import XattrMode

    for mode in XattrMode:
        if mode.value == text:
            return mode
    known = " nor ".join(mode.value for mode in XattrMode)
    raise argparse.ArgumentTypeError(f"{text!r:.80} is neither {known}")


_PATH = Option(("path",), "The directory.", "PATH")
_AS_IT_IS = Option(
    ("--no-propagate-usr-to-root",),
    "Use the directory unchanged, not as a container's root.",
    default=False,
)
_IMAGE = "The image: its digest in hex, or its name."
_FROM_DIRECTORY = (
    _PATH,
    Option(
        ("--bootable",),
        "Use the bootable tree: /boot and /sysroot are empty, with SELinux labels.",
        default=False,
    ),
    _AS_IT_IS,
    Option(
        ("--xattrs",),
        "Which extended attributes are kept: allowlist-only (default) or keep-user-xattrs.",
        "MODE",
        default="allowlist-only",
        offered=("allowlist-only", "keep-user-xattrs"),
        parse=_xattr_mode,
    ),
)

COMMANDS: tuple[Command, ...] = (
    Command(
        name="images",
        help="List the images that have a name.",
        options=(
            Option(("--json",), "Print one JSON object.", default=False),
            Option(("--no-trunc",), "Print full digests.", default=False),
        ),
        run=list_images,
        aliases=("list-images",),
    ),
    Command(
        name="image-objects",
        help="Print the objects of an image's files.",
        options=(Option(("name",), _IMAGE, "NAME"),),
        run=image_objects,
    ),
    Command(
        name="dump-files",
        help="Print the entries of files in an image.",
        options=(
            Option(("image",), _IMAGE, "IMAGE"),
            Option(("files",), "A file or directory in the image.", "FILE", repeated=True),
            Option(
                ("--backing-path-only",),
                "Print only the path of the content below the objects.",
                default=False,
            ),
        ),
        run=dump_files,
    ),
    Command(
        name="create-image",
        help="Store the files of a directory and an image of it.",
        options=(
            *_FROM_DIRECTORY,
            Option(("name",), "The name of the image.", "NAME", optional=True),
        ),
        run=create_image,
    ),
    Command(
        name="create-dumpfile",
        help="Print the tree of the image of a directory.",
        options=_FROM_DIRECTORY,
        run=create_dumpfile,
    ),
    Command(
        name="compute-id",
        help="Print the digest of the image of a directory.",
        options=_FROM_DIRECTORY,
        run=compute_id,
    ),
    Command(
        name="compute-karg",
        help="Print the kernel argument that boots the image of a directory.",
        options=(_PATH, _AS_IT_IS),
        run=compute_karg,
    ),
    Command(
        name="mount",
        help="Mount an image.",
        options=(
            Option(("name",), _IMAGE, "NAME"),
            Option(("mountpoint",), "The directory to mount on.", "MOUNTPOINT"),
            *mounting.OPTIONS,
        ),
        run=mount,
    ),
    Command(
        name="import-image",
        help="Store an image from standard input.",
        options=(Option(("name",), "The name of the image.", "REF"),),
        run=import_image,
    ),
    Command(
        name="cat",
        help="Print the original bytes of a stream.",
        options=(Option(("name",), "The content id, or refs/ and a reference.", "NAME"),),
        run=cat,
    ),
)
