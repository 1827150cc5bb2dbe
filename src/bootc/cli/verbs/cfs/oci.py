"""``cfs oci``: container images of a repository, with the verbs of ``cfsctl oci``.

What ``cfsctl`` prints is printed here to the letter. An image is named by its tag or by the
digest of its manifest, which may have an ``@`` in front; where a tree is computed, a digest
is that of the configuration, as there.

Source: composefs, "Commands" and "OCI pull pipeline".
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.cli.output import render_pretty_json, render_table
from bootc.cli.verbs.cfs.opening import opened
from bootc.errors import Error, UsageError

if TYPE_CHECKING:
    from bootc.formats.digest import Digest, OciDigest
    from bootc.formats.tree import Directory
    from bootc.oci.pull import Amount
    from bootc.oci.stored import StoredImage
    from bootc.repository.repository import Repository

_XATTR_MODES = ("allowlist-only", "keep-user-xattrs")
_SHORT_DIGEST = 12


class NoMatch(Error):
    """There is no way to make the boot image that was expected."""


class NotToTerminal(Error):
    """Bytes that no terminal can show."""


def pull(args: argparse.Namespace, context: Context) -> None:
    """Bring an image into the repository, and say what came of it."""
    from bootc.formats.imgref import ImageReference
    from bootc.oci import pull as pulling
    from bootc.oci.source import open_source
    from bootc.oci.stored import require_tag

    expected: Digest | None = args.expected_digest
    if expected is not None and not args.bootable:
        raise UsageError("--expected-digest needs --bootable")
    reference = ImageReference.parse(args.image)
    tag = args.image if args.name is None else args.name
    require_tag(tag)
    with opened(args, context, writable=True) as repository:
        if expected is not None and expected.algorithm is not repository.algorithm:
            raise UsageError(f"--expected-digest is not of {repository.algorithm.label}")
        with open_source(reference) as source:
            pulled = pulling.pull(
                repository,
                source,
                context.sink,
                bootable=args.bootable and expected is None,
                tag=tag,
                erofs_formats=_formats(args, repository),
            )
        repository.sync()
        verity = repository.streams.digest_of(pulling.manifest_id(pulled.manifest_digest))
        context.write(
            f"manifest {pulled.manifest_digest}\n"
            f"config   {pulled.config_digest}\n"
            f"verity   {verity}\n"
            f"tagged   {tag}\n"
            f"objects  {_amount(pulled.amount)}\n"
        )
        if expected is not None:
            context.write(_matched(repository, pulled.manifest_digest, expected))
        elif args.bootable:
            context.write(f"Boot image: {pulled.image_id}\n")


def _matched(repository: Repository, manifest_digest: OciDigest, expected: Digest) -> str:
    from bootc.oci.pull import FORMAT_VERSIONS
    from bootc.oci.seal import XattrMode
    from bootc.oci.stored import match_boot_image, read_image

    found = match_boot_image(repository, read_image(repository, manifest_digest), expected)
    if found is None:
        tried = len(XattrMode) * len(FORMAT_VERSIONS)
        raise NoMatch(
            f"No boot image configuration matched expected digest {expected} "
            f"(tried {tried} mode/version combinations)",
            hint="bootc container compute-composefs-digest --explain compares trees",
        )
    repository.sync()
    how = f"xattr-mode={found.xattrs.value}, format-version=V{found.version}"
    return f"Boot image: {found.image_id} ({how})\n"


def _amount(amount: Amount) -> str:
    from bootc.cli.progress import human_bytes

    objects = amount.objects
    stored = human_bytes(objects.new_bytes, decimals=2)
    inlined = human_bytes(amount.inlined_bytes, decimals=2)
    return (
        f"{objects.new} new + {objects.present} already present objects; "
        f"{stored} stored, {inlined} inlined"
    )


def _formats(args: argparse.Namespace, repository: Repository) -> tuple[int, ...]:
    """Return the versions of the format to make images of, the one that counts first."""
    formats = repository.metadata.effective_erofs_formats()
    wanted: tuple[int, ...] = (formats.default, *formats.extra)
    if args.erofs_version is not None:
        wanted = (args.erofs_version,)
    if 0 in wanted:
        raise UsageError(
            "images made of container images cannot have version 0", hint="give --erofs-version 1"
        )
    return wanted


def _version(args: argparse.Namespace, repository: Repository) -> int:
    """Return the version of the format that counts."""
    asked: int | None = args.erofs_version
    return repository.metadata.effective_erofs_formats().default if asked is None else asked


def images(args: argparse.Namespace, context: Context) -> None:
    """List tagged images."""
    from bootc.oci.stored import list_images, referrers

    with opened(args, context, writable=False) as repository:
        found = [
            (tag, image, len(referrers(repository, image.documents.manifest_digest)))
            for tag, image in list_images(repository)
        ]
    if args.json:
        entries: list[object] = [_described(*row) for row in found]
        context.write(render_pretty_json({"images": entries}))
    elif found:
        header = ("NAME", "DIGEST", "ARCH", "LAYERS", "REFS")
        context.write(render_table(header, [_row(*row) for row in found]))
    else:
        context.write("No images found\n")


def _described(tag: str, image: StoredImage, referrer_count: int) -> dict[str, object]:
    from bootc.repository.findings import shown

    config = image.config
    return {
        "name": shown(tag),
        "manifest_digest": str(image.documents.manifest_digest),
        "is_container": config is not None,
        "architecture": config.architecture if config else "",
        "os": config.os if config else "",
        "created": config.created if config else None,
        "layer_count": len(image.documents.diff_ids),
        "referrer_count": referrer_count,
    }


def _row(tag: str, image: StoredImage, referrer_count: int) -> tuple[str, ...]:
    from bootc.repository.findings import shown

    return (
        shown(tag),
        image.documents.manifest_digest.hex[:_SHORT_DIGEST],
        (image.config.architecture if image.config else "") or "artifact",
        str(len(image.documents.diff_ids)),
        str(referrer_count),
    )


def inspect(args: argparse.Namespace, context: Context) -> None:
    """Print the documents of an image, and what was made of it."""
    from bootc.oci.pull import FORMAT_VERSIONS, image_name
    from bootc.oci.stored import find_image, referrers

    if args.manifest and args.config:
        raise UsageError("--manifest and --config exclude each other")
    with opened(args, context, writable=False) as repository:
        image = find_image(repository, args.image)
        referring = referrers(repository, image.documents.manifest_digest)
        version = _version(args, repository)
    documents = image.documents
    if args.manifest or args.config:
        raw = documents.manifest_raw if args.manifest else documents.config_raw
        context.write_bytes(raw + b"\n")
        return

    def made(*, bootable: bool) -> str | None:
        if version not in FORMAT_VERSIONS:
            return None
        found = image.images.get(image_name(version, bootable=bootable))
        return None if found is None else found.hex

    context.write(
        render_pretty_json(
            {
                "manifest": documents.manifest_raw.decode("utf-8", "replace"),
                "config": documents.config_raw.decode("utf-8", "replace"),
                "referrers": [str(digest) for digest in referring],
                "composefs_erofs": made(bootable=False),
                "composefs_boot_erofs": made(bootable=True),
            }
        )
    )


def layer(args: argparse.Namespace, context: Context) -> None:
    """Print a layer: its archive, its entries, or facts about it."""
    from bootc.oci.layers import dump_layer, layer_archive, layer_facts

    if args.json and args.dumpfile:
        raise UsageError("--json and --dumpfile exclude each other")
    if context.stdout_is_terminal and not (args.json or args.dumpfile):
        raise NotToTerminal(
            "a tar archive is nothing to show on a terminal",
            hint="send it to a file or a program, or give --json or --dumpfile",
        )
    with opened(args, context, writable=False) as repository:
        if args.json:
            context.write(render_pretty_json(layer_facts(repository, args.diff_id).to_json()))
            return
        pieces = dump_layer if args.dumpfile else layer_archive
        for piece in pieces(repository, args.diff_id):
            context.write_bytes(piece)


def tag(args: argparse.Namespace, context: Context) -> None:
    """Give an image a tag."""
    from bootc.oci.stored import tag_image

    with opened(args, context, writable=True) as repository:
        tag_image(repository, args.digest, args.name)
        repository.sync()
    context.write(f"Tagged {args.digest} as {args.name}\n")


def untag(args: argparse.Namespace, context: Context) -> None:
    """Take a tag away."""
    from bootc.oci.stored import untag_image

    with opened(args, context, writable=True) as repository:
        untag_image(repository, args.name)
        repository.sync()
    context.write(f"Removed tag {args.name}\n")


def compute_id(args: argparse.Namespace, context: Context) -> None:
    """Print the id of the image that is made of a configuration's layers."""
    from bootc.formats.erofs.writer import mkfs_erofs
    from bootc.formats.verity import verity_digest

    with opened(args, context, writable=False) as repository:
        data = mkfs_erofs(_tree(args, repository), version=_version(args, repository))
        context.write(f"{verity_digest(data, repository.algorithm)}\n")


def dump(args: argparse.Namespace, context: Context) -> None:
    """Print the tree that an image is made of as a dumpfile."""
    from bootc.formats.dumpfile import write_dumpfile

    with opened(args, context, writable=False) as repository:
        context.write_bytes(b"".join(write_dumpfile(_tree(args, repository))))


def _tree(args: argparse.Namespace, repository: Repository) -> Directory:
    from bootc.oci.seal import XattrMode
    from bootc.oci.stored import config_tree, find_config

    return config_tree(
        repository,
        find_config(repository, args.config, args.verity),
        bootable=args.bootable,
        xattrs=XattrMode(args.xattrs),
        trusted=args.verity is not None,
    )


def fsck(args: argparse.Namespace, context: Context) -> int:
    """Check the repository and its images; return 1 if something is wrong."""
    from bootc.oci.fsck import check_images
    from bootc.repository.fsck import check

    with opened(args, context, writable=False) as repository:
        checked = check(repository, context.sink)
        report = check_images(repository, checked, context.sink, tag=args.image)
    if args.json:
        context.write(render_pretty_json(report.to_json()))
        return 0
    context.write(report.to_text())
    return 0 if report.ok else 1


def parse_object_id(text: str) -> Digest:
    """Parse the id of an object, a stream or an EROFS image."""
    from bootc.formats.digest import Digest, DigestError

    try:
        return Digest.from_hex(text)
    except DigestError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def parse_oci_digest(text: str) -> OciDigest:
    """Parse the digest of a manifest or of a layer."""
    from bootc.formats.digest import DigestError, OciDigest

    try:
        return OciDigest.parse(text)
    except DigestError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


_IMAGE = Option(("image",), "Its tag, or the digest of its manifest.", "IMAGE")
_TREE = (
    Option(("config",), "An image's tag, or @ and the digest of its configuration.", "CONFIG"),
    Option(
        ("verity",),
        "The object that the configuration's stream has to be; layers are trusted then.",
        "VERITY",
        parse=parse_object_id,
        optional=True,
    ),
    Option(("--bootable",), "The tree to boot, not the plain one.", default=False),
    Option(
        ("--xattrs",),
        "Which extended attributes are kept (default: allowlist-only).",
        "MODE",
        default="allowlist-only",
        choices=_XATTR_MODES,
    ),
)
_LOOKING = (
    Command(
        name="images",
        help="List tagged images.",
        options=(Option(("--json",), "As one JSON object.", default=False),),
        run=images,
    ),
    Command(
        name="inspect",
        help="Print the documents of an image, and what was made of it.",
        options=(
            _IMAGE,
            Option(("--manifest",), "Only the manifest, byte for byte.", default=False),
            Option(("--config",), "Only the configuration, byte for byte.", default=False),
        ),
        run=inspect,
    ),
    Command(
        name="layer",
        help="Print the archive of a layer.",
        options=(
            Option(
                ("diff_id",),
                "The layer's digest in rootfs.diff_ids.",
                "DIFFID",
                parse=parse_oci_digest,
            ),
            Option(("--dumpfile",), "Its entries, a line each.", default=False),
            Option(("--json",), "What it consists of, as one JSON object.", default=False),
        ),
        run=layer,
        aliases=("layers",),
    ),
    Command(
        name="compute-id",
        help="Print the id of the image that is made of stored layers.",
        options=_TREE,
        run=compute_id,
    ),
    Command(
        name="dump",
        help="Print the tree that an image is made of as a dumpfile.",
        options=_TREE,
        run=dump,
    ),
    Command(
        name="fsck",
        help="Check the repository, and that its images are complete.",
        options=(
            Option(("image",), "The only image to check, by its tag.", "TAG", optional=True),
            Option(("--json",), "As one JSON object; exit 0 whatever is found.", default=False),
        ),
        run=fsck,
    ),
)

COMMAND = Command(
    name="oci",
    help="Work on container images in the repository.",
    commands=(
        Command(
            name="pull",
            help="Bring an image into the repository.",
            options=(
                Option(("image",), "oci:DIR:TAG, docker://HOST/REPO:TAG, …", "IMAGE"),
                Option(("name",), "Its tag (default: IMAGE).", "NAME", optional=True),
                Option(("--bootable",), "Make the image to boot, too.", default=False),
                Option(
                    ("--expected-digest",),
                    "Make the boot image in the way that gives this id, or fail.",
                    "HEX",
                    parse=parse_object_id,
                ),
            ),
            run=pull,
        ),
        *_LOOKING,
        Command(
            name="tag",
            help="Give an image a tag.",
            options=(
                Option(("digest",), "Of its manifest.", "DIGEST", parse=parse_oci_digest),
                Option(("name",), "The tag.", "NAME"),
            ),
            run=tag,
        ),
        Command(
            name="untag",
            help="Take a tag away; the image stays until gc.",
            options=(Option(("name",), "The tag.", "NAME"),),
            run=untag,
        ),
    ),
)
