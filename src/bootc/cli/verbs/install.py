"""``bootc install``: install an image on a disk."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bootc.cli.options import TRANSPORT_NAMES, Command, Context, Option
from bootc.errors import Error

if TYPE_CHECKING:
    from bootc.deploy.install.running_image import RunningImage

_BOOTLOADERS = ("grub", "grub-cc", "systemd", "none")
_BLOCK_SETUPS = ("direct", "tpm2-luks")


def to_disk(args: argparse.Namespace, context: Context) -> None:
    """Install on a whole disk."""
    from bootc.deploy.install.request import InstallRequest, target_reference
    from bootc.deploy.install.to_disk import install_to_disk
    from bootc.formats.imgref import ImageReference

    if args.source_imgref is None:
        running = _running_image()
        source, updates = running.source, running.target
        if updates is None and args.target_imgref is None:
            raise Error(
                "podman started this container by the id of its image, which names no image for "
                "updates",
                hint="name one with --target-imgref",
            )
    else:
        source = updates = ImageReference.parse(args.source_imgref)
    request = InstallRequest(
        device=args.device,
        source=source,
        target=target_reference(updates or source, args.target_imgref, args.target_transport),
        bootloader=args.bootloader,
        block_setup=args.block_setup,
        filesystem=args.filesystem,
        root_size_mib=None if args.root_size is None else _size(args.root_size),
        wipe=args.wipe,
        kargs=tuple(args.karg),
        allow_missing_verity=args.allow_missing_verity,
        generic_image=args.generic_image,
        uki_addons=tuple(args.uki_addon),
        from_container=args.source_imgref is None,
    )
    install_to_disk(request, context.sink)


def _running_image() -> RunningImage:
    from bootc.deploy.install.running_image import find_running_image
    from bootc.fs.imageroot import ImageRoot

    with ImageRoot.open("/") as root:
        return find_running_image(root)


def _size(text: str) -> int:
    """Parse a size, as upstream does only when the command runs.

    Raises:
        Error: the text is not a size.
    """
    from bootc.deploy.install.partition import parse_size

    try:
        return parse_size(text)
    except ValueError as exc:
        raise Error(f"--root-size: {exc}") from None


_COMMAND = Command(
    name="install",
    help="Install an image.",
    commands=(
        Command(
            name="to-disk",
            help="Install an image on a whole disk. Everything on the disk is lost.",
            options=(
                Option(("device",), "The disk, for example /dev/vda.", metavar="DEVICE"),
                Option(
                    ("--composefs-backend",),
                    "Use the composefs-native layout (the default; there is no other).",
                    default=False,
                ),
                Option(
                    ("--source-imgref",),
                    "The image to install: oci:DIR:TAG, docker://HOST/REPO:TAG, … (default: the "
                    "image of this container).",
                    metavar="IMAGE",
                ),
                Option(
                    ("--target-imgref",),
                    "The image for updates of the installed machine (default: the source).",
                    metavar="IMAGE",
                ),
                Option(
                    ("--target-transport",),
                    "The transport of --target-imgref (default: registry).",
                    metavar="TRANSPORT",
                    offered=TRANSPORT_NAMES,
                ),
                Option(
                    ("--bootloader",),
                    "The boot loader: systemd, grub on a machine with a BIOS, or none.",
                    metavar="NAME",
                    choices=_BOOTLOADERS,
                ),
                Option(
                    ("--block-setup",),
                    "The block setup: direct.",
                    metavar="NAME",
                    choices=_BLOCK_SETUPS,
                ),
                Option(
                    ("--filesystem",),
                    "The root file system: ext4, btrfs or xfs (default: from the configuration).",
                    metavar="TYPE",
                    offered=("ext4", "btrfs", "xfs"),
                ),
                Option(
                    ("--root-size",),
                    "The size of the root partition: 10G, 4096M (default: the rest of the disk).",
                    metavar="SIZE",
                ),
                Option(("--wipe",), "Overwrite the data on the disk.", default=False),
                Option(
                    ("--karg",),
                    "Add a kernel argument; may be repeated.",
                    metavar="ARG",
                    default=(),
                    takes_empty=True,
                ),
                Option(
                    ("--allow-missing-verity",),
                    "Tolerate a file system without fs-verity, now and at each boot.",
                    default=False,
                ),
                Option(
                    ("--uki-addon",),
                    "Install this addon of the image's unified kernel image; may be repeated.",
                    metavar="NAME",
                    default=(),
                ),
                Option(
                    ("--generic-image",),
                    "The disk will boot on another machine: do not change this machine's firmware.",
                    default=False,
                ),
            ),
            run=to_disk,
        ),
    ),
)

COMMANDS = (_COMMAND,)
