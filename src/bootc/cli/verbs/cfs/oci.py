"""``cfs oci``: container images of a repository, with the verbs of ``cfsctl oci``.

The verbs print exactly what ``cfsctl`` prints. The user names an image by its tag or by the
digest of its manifest, with or without an ``@`` in front. For the verbs that compute a tree, a
digest is the digest of the config, as in ``cfsctl``.

Source: composefs, "Commands" and "OCI pull pipeline".
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.cli.render import fsck as fsck_report
from bootc.cli.render import repair as repair_report
from bootc.cli.render.structured import render_pretty_json
from bootc.cli.verbs.cfs import mounting, oci_boot, oci_import, oci_inspect
from bootc.cli.verbs.cfs.oci_inspect import (
    default_version,
    parse_object_id,
    parse_oci_digest,
    requested_formats,
)
from bootc.cli.verbs.cfs.opening import opened
from bootc.errors import Error, UsageError
from bootc.printable import printable
from bootc.sizes import human_size

if TYPE_CHECKING:
    from bootc.formats.digest import Digest, OciDigest
    from bootc.oci.pull import Amount
    from bootc.repository.repair import Repaired
    from bootc.repository.repository import Repository


class NothingToMount(Error):
    """The repository has no EROFS image of a container image."""


class NoMatch(Error):
    """No combination of settings makes the expected boot image."""


def pull(args: argparse.Namespace, context: Context) -> None:
    """Pull an image into the repository, and print what it became."""
    from bootc.formats.imgref import ImageReference
    from bootc.oci import pull as pulling
    from bootc.oci.names import manifest_id
    from bootc.oci.source import open_source
    from bootc.oci.tags import require_new_tag

    expected: Digest | None = args.expected_digest
    if expected is not None and not args.bootable:
        raise UsageError("--expected-digest needs --bootable")
    reference = ImageReference.parse(args.image)
    if args.local_fetch == "zerocopy" and reference.transport == "containers-storage":
        raise oci_import.NoZeroCopy(
            "a pull unpacks layers, and never shares the files of containers-storage",
            hint="leave out --local-fetch",
        )
    tag = args.image if args.name is None else args.name
    require_new_tag(tag)
    matched: list[str] = []
    with opened(args, context, writable=True) as repository:

        def accept(manifest_digest: OciDigest) -> None:
            if expected is not None:
                matched.append(_matched(repository, manifest_digest, expected))

        if expected is not None and expected.algorithm is not repository.algorithm:
            raise UsageError(f"--expected-digest is not of {repository.algorithm.label}")
        with open_source(reference) as source:
            pulled = pulling.pull(
                repository,
                source,
                context.sink,
                bootable=args.bootable and expected is None,
                tag=tag,
                erofs_formats=requested_formats(args),
                accept=accept,
            )
        repository.sync()
        verity = repository.streams.digest_of(manifest_id(pulled.manifest_digest))
        context.write(
            f"manifest {pulled.manifest_digest}\n"
            f"config   {pulled.config_digest}\n"
            f"verity   {verity}\n"
            f"tagged   {printable(tag)}\n"
            f"objects  {_amount(pulled.amount)}\n"
        )
        if matched:
            context.write(matched[0])
        elif args.bootable:
            context.write(f"Boot image: {pulled.image_id}\n")


def _matched(repository: Repository, manifest_digest: OciDigest, expected: Digest) -> str:
    from bootc.oci.boot_image import match_boot_image
    from bootc.oci.names import FORMAT_VERSIONS, XattrMode
    from bootc.oci.stored import read_image

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
    objects = amount.objects
    stored = human_size(objects.new_bytes, decimals=2)
    # What sparse files become is stored, and is no part of the archive.
    inlined = human_size(max(0, amount.inlined_bytes), decimals=2)
    return (
        f"{objects.new} new + {objects.present} already present objects; "
        f"{stored} stored, {inlined} inlined"
    )


def tag(args: argparse.Namespace, context: Context) -> None:
    """Give an image a tag."""
    from bootc.oci.tags import tag_image

    with opened(args, context, writable=True) as repository:
        tag_image(repository, args.digest, args.name)
        repository.sync()
    context.write(f"Tagged {args.digest} as {printable(args.name)}\n")


def untag(args: argparse.Namespace, context: Context) -> None:
    """Remove a tag."""
    from bootc.oci.tags import untag_image

    with opened(args, context, writable=True) as repository:
        untag_image(repository, args.name)
        repository.sync()
    context.write(f"Removed tag {printable(args.name)}\n")


def mount(args: argparse.Namespace, context: Context) -> None:
    """Mount the EROFS image of a container image at a directory."""
    from bootc.oci.stored import find_image

    mounting.check_options(args)
    with opened(args, context, writable=False) as repository:
        image = find_image(repository, args.image)
        found = image.made(default_version(args, repository), bootable=args.bootable)
        if found is None:
            kind = "boot image" if args.bootable else "image"
            raise NothingToMount(
                f"no {kind} was made of {args.image}",
                hint=f"pull it again{' with --bootable' if args.bootable else ''}",
            )
        mounting.mount_at(args, repository, found, args.mountpoint)


def fsck(args: argparse.Namespace, context: Context) -> int:
    """Check the repository and its images; with ``--repair`` set damaged parts aside.

    Returns:
        1 if there are findings, or if a repair leaves some.
    """
    from bootc.oci.fsck import check_images
    from bootc.oci.repair import repair_images
    from bootc.repository.fsck import check

    repaired = None
    with opened(args, context, writable=args.repair) as repository:
        checked = check(repository, context.sink)
        report = check_images(repository, checked, context.sink, tag=args.image)
        if not args.json:
            context.write(fsck_report.oci_report_text(report))
        if args.repair and not report.ok:
            repaired = repair_images(repository, report, context.sink, wait=not args.no_wait)
    if args.json:
        found = fsck_report.oci_report_json(report)
        if args.repair:
            repair = None if repaired is None else repair_report.repaired_images_json(repaired)
            found["repair"] = repair
        context.write(render_pretty_json(found))
        return 0
    if repaired is None:
        return 0 if report.ok else 1
    context.write(repair_report.repaired_images_text(repaired))
    return 1 if repaired.pull_again or repaired.left or _left(repaired.repository) else 0


def _left(repaired: Repaired | None) -> bool:
    return repaired is not None and bool(repaired.left)


COMMAND = Command(
    name="oci",
    help="Work on container images in the repository.",
    commands=(
        Command(
            name="pull",
            help="Pull an image into the repository.",
            options=(
                Option(("image",), "The source: oci:DIR:TAG, docker://HOST/REPO:TAG, ….", "IMAGE"),
                Option(("name",), "The tag (default: IMAGE).", "NAME", optional=True),
                Option(("--bootable",), "Also create the bootable image.", default=False),
                Option(
                    ("--expected-digest",),
                    "Create the bootable image that has this digest, or fail.",
                    "HEX",
                    parse=parse_object_id,
                ),
                Option(
                    ("--local-fetch",),
                    "disabled and auto have no effect; zerocopy is refused for containers-storage.",
                    "MODE",
                    default="disabled",
                    choices=("disabled", "auto", "zerocopy"),
                ),
            ),
            run=pull,
        ),
        *oci_import.COMMANDS,
        Command(
            name="fsck",
            help="Check the repository, and compare its images with their digests.",
            options=(
                Option(("image",), "The tag of the only image to check.", "TAG", optional=True),
                Option(
                    ("--json",),
                    "Print one JSON object, and exit with 0 even if there are findings.",
                    default=False,
                ),
                Option(
                    ("--repair",),
                    "Set damaged or wrong objects aside, so the next pull of an image repairs it.",
                    default=False,
                ),
            ),
            run=fsck,
        ),
        *oci_inspect.COMMANDS,
        *oci_boot.COMMANDS,
        Command(
            name="tag",
            help="Give an image a tag.",
            options=(
                Option(
                    ("digest",), "The digest of the manifest.", "DIGEST", parse=parse_oci_digest
                ),
                Option(("name",), "The tag.", "NAME"),
            ),
            run=tag,
        ),
        Command(
            name="mount",
            help="Mount the EROFS image of a container image.",
            options=(
                oci_inspect.IMAGE,
                Option(("mountpoint",), "The directory to mount on.", "MOUNTPOINT"),
                Option(
                    ("--bootable",), "Mount the bootable image, not the plain one.", default=False
                ),
                *mounting.OPTIONS,
            ),
            run=mount,
        ),
        Command(
            name="untag",
            help="Remove a tag. The image is kept until gc.",
            options=(Option(("name",), "The tag.", "NAME"),),
            run=untag,
        ),
    ),
)
