"""``bootc container seal``: make a sealed image of an image, at once or around a signer."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bootc.cli.options import TRANSPORT_NAMES, Command, Context, Option
from bootc.cli.verbs.container.version import VERSION_OPTIONS, given_version
from bootc.errors import UsageError

if TYPE_CHECKING:
    from bootc.build.seal import Sealed, SealOptions
    from bootc.build.seal_base import BaseImage
    from bootc.build.signing import Signer
    from bootc.formats.imgref import ImageReference

_CHOICES = ("v1", "v2", "v1-only")


def seal(args: argparse.Namespace, context: Context) -> None:
    """Seal an image."""
    from bootc.build.seal import check_ready
    from bootc.build.seal import seal as run
    from bootc.formats.imgref import ImageReference

    output = ImageReference.parse(args.output)
    signer, options = _signer(args), _options(args)
    check_ready(output, signer)
    with _base(args.image, context) as base:
        sealed = run(base, output, options, signer, context.sink)
    _print(sealed, output, context)


def prepare(args: argparse.Namespace, context: Context) -> None:
    """Write the files to sign, and print the paths of those that are not signed."""
    from bootc.build.seal import check_ready
    from bootc.build.seal import prepare as run
    from bootc.build.seal_work import Work
    from bootc.fs.parents import directories_made

    options = _options(args)
    check_ready()
    with (
        directories_made(args.directory),
        Work.open(args.directory) as work,
        _base(args.image, context) as base,
    ):
        for file in run(base, work, options, context.sink):
            context.write(f"{work.unsigned(file.name)}\n")


def finish(args: argparse.Namespace, context: Context) -> None:
    """Write the sealed image from the signed files."""
    from bootc.build.seal import finish as run
    from bootc.build.seal_work import Work
    from bootc.formats.imgref import ImageReference
    from bootc.oci.layout_write import check_output

    output = ImageReference.parse(args.output)
    check_output(output)
    with Work.open(args.directory) as work, _base(args.image, context) as base:
        sealed = run(base, work, output, context.sink, certificate=args.cert)
    _print(sealed, output, context)


@contextlib.contextmanager
def _base(image: str, context: Context) -> Iterator[BaseImage]:
    from bootc.build.seal_base import parse_epoch, read_base
    from bootc.formats.imgref import ImageReference
    from bootc.oci.source import open_source

    epoch = parse_epoch(os.environ.get("SOURCE_DATE_EPOCH", ""))
    with open_source(ImageReference.parse(image)) as source:
        yield read_base(source, context.sink, epoch=epoch)


def _options(args: argparse.Namespace) -> SealOptions:
    from bootc.build.seal import SealOptions
    from bootc.build.uki import DigestChoice

    return SealOptions(
        DigestChoice(args.erofs_version), tuple(args.karg), args.stub, given_version(args)
    )


def _signer(args: argparse.Namespace) -> Signer:
    from bootc.build.signing import CommandSigner, KeySigner

    if (args.key is None) == (args.signer is None):
        raise UsageError(
            "name one signer: --key and --cert, or --signer",
            hint="to sign elsewhere, run bootc container seal prepare IMAGE DIR",
        )
    if args.key is not None:
        if args.cert is None:
            raise UsageError("--key needs --cert, the certificate of the key")
        return KeySigner(args.key, args.cert)
    try:
        words = shlex.split(args.signer)
    except ValueError as exc:
        raise UsageError(f"--signer is not a command: {exc}") from None
    if not words:
        raise UsageError("--signer names no command")
    return CommandSigner(tuple(words), dict(os.environ), args.cert)


def _print(sealed: Sealed, output: ImageReference, context: Context) -> None:
    context.write(
        f"Image: {output}\nDigest: {sealed.manifest_digest}\nDeployment: {sealed.image_id}\n"
    )


_IMAGE = Option(
    ("image",),
    "The image: oci:DIR:TAG, docker://HOST/REPO:TAG, …",
    metavar="IMAGE",
    offered=tuple(f"{name}:" for name in TRANSPORT_NAMES),
)
_OUTPUT = Option(("output",), "The sealed image: oci:DIR:TAG.", metavar="OUTPUT")
_DIRECTORY = Option(("directory",), "The directory for the files to sign.", metavar="DIR")
_CERT = Option(
    ("--cert",), "The certificate that signatures must verify with, in PEM.", metavar="FILE"
)
_UKI_OPTIONS = (
    Option(("--karg",), "Add a kernel argument; may be repeated.", metavar="ARGUMENT", default=()),
    Option(
        ("--erofs-version",),
        "The digests to name: v1 and then v2, v2, or v1-only (default: v1).",
        metavar="CHOICE",
        default="v1",
        choices=_CHOICES,
    ),
    Option(
        ("--stub",),
        "The stub for the unified kernel image (default: that of the image).",
        metavar="FILE",
    ),
    *VERSION_OPTIONS,
)

_PREPARE = Command(
    name="prepare",
    help="Write the files to sign, and print the paths of those that are not signed.",
    options=(_IMAGE, _DIRECTORY, *_UKI_OPTIONS),
    run=prepare,
)
_FINISH = Command(
    name="finish",
    help="Write the sealed image from the signed files.",
    options=(_IMAGE, _DIRECTORY, _OUTPUT, _CERT),
    run=finish,
)
COMMAND = Command(
    name="seal",
    help="Make a sealed image: with a signed unified kernel image that names its files.",
    options=(
        _IMAGE,
        _OUTPUT,
        Option(("--key",), "The key to sign with, in PEM.", metavar="FILE"),
        _CERT,
        Option(
            ("--signer",),
            "A command that signs: COMMAND UNSIGNED SIGNED.",
            metavar="COMMAND",
        ),
        *_UKI_OPTIONS,
    ),
    commands=(_PREPARE, _FINISH),
    run=seal,
)
