"""``bootc install``: install an image on a disk."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NoReturn

from bootc.cli.options import TRANSPORT_NAMES, Command, Context, Option
from bootc.errors import Error, UsageError

if TYPE_CHECKING:
    from bootc.deploy.install.running_image import RunningImage

_BOOTLOADERS = ("grub", "grub-cc", "systemd", "none", "ukiboot")
_BOOT_TYPES = ("bls", "uki")
_BOUND_IMAGES = ("stored", "pull", "skip")
_BLOCK_SETUPS = ("direct", "tpm2-luks")
_REPLACE = ("wipe", "alongside")
#: Where podman users mount the root of the host.
_TARGET_ROOT = "/target"


def to_disk(args: argparse.Namespace, context: Context) -> None:
    """Install on a whole disk."""
    from bootc.deploy.install.request import DiskRequest
    from bootc.deploy.install.to_disk import install_to_disk

    request = DiskRequest(
        device=args.device,
        via_loopback=args.via_loopback,
        block_setup=args.block_setup,
        filesystem=args.filesystem,
        root_size_mib=None if args.root_size is None else _size(args.root_size),
        wipe=args.wipe,
        **_shared(args, context),
    )
    install_to_disk(request, context.sink)


def to_filesystem(args: argparse.Namespace, context: Context) -> None:
    """Install to mounted file systems."""
    from bootc.deploy.install.request import FilesystemRequest, Replace
    from bootc.deploy.install.to_filesystem import install_to_filesystem

    request = FilesystemRequest(
        root=args.root,
        replace=None if args.replace is None else Replace(args.replace),
        root_mount_spec=args.root_mount_spec,
        boot_mount_spec=args.boot_mount_spec,
        acknowledge_destructive=args.acknowledge_destructive,
        # The file systems of another system may be in use.
        skip_finalize=args.skip_finalize or args.replace == Replace.ALONGSIDE,
        **_shared(args, context),
    )
    install_to_filesystem(request, context.sink)


def to_existing_root(args: argparse.Namespace, context: Context) -> None:
    """Install to the root file system of the running system."""
    from bootc.deploy.install.request import FilesystemRequest, Replace
    from bootc.deploy.install.to_filesystem import install_to_existing_root

    request = FilesystemRequest(
        root=_TARGET_ROOT if args.root is None else args.root,
        replace=Replace(args.replace),
        existing_root=True,
        cleanup=args.cleanup,
        acknowledge_destructive=args.acknowledge_destructive,
        skip_finalize=True,
        **_shared(args, context),
    )
    install_to_existing_root(request, context.sink)


def finalize(args: argparse.Namespace, context: Context) -> None:
    """Write back the file systems of an installation."""
    from bootc.deploy.install.finalize import finalize_installation

    for path in finalize_installation(args.root):
        context.write(f"Finalized {path}\n")


def ensure_completion(args: argparse.Namespace, context: Context) -> NoReturn:
    """Refuse to complete an installation of ostree."""
    raise Error(
        "ensure-completion completes an installation of ostree",
        hint="an installation of this program is complete when it ends",
    )


def _shared(args: argparse.Namespace, context: Context) -> dict[str, Any]:
    """Return the part of a request that all installations have."""
    from bootc.deploy.install.request import BoundImages, target_reference
    from bootc.formats.imgref import ImageReference
    from bootc.formats.origin import BootType

    if args.source_imgref is None:
        running = _running_image()
        source, updates, name = running.source, running.target, running.name
        if updates is None and args.target_imgref is None:
            raise Error(
                "podman started this container by the id of its image, which names no image for "
                "updates",
                hint="name one with --target-imgref",
            )
    else:
        source = updates = ImageReference.parse(args.source_imgref)
        name = source.name
    if args.disable_sealing and args.boot_type != BootType.BLS:
        raise UsageError("--disable-sealing needs --boot-type bls")
    if args.dry_run:
        context.messages_are_the_result()
    return {
        "source": source,
        "source_name": name,
        "target": target_reference(updates or source, args.target_imgref, args.target_transport),
        "bootloader": args.bootloader,
        "kargs": tuple(args.karg),
        "karg_deletes": tuple(args.karg_delete),
        "allow_missing_verity": args.allow_missing_verity,
        "generic_image": args.generic_image,
        "uki_addons": tuple(args.uki_addon),
        "bound_images": None if args.bound_images is None else BoundImages(args.bound_images),
        "boot_type": None if args.boot_type is None else BootType(args.boot_type),
        "disable_sealing": args.disable_sealing,
        "from_container": args.source_imgref is None,
        "root_keys_file": args.root_ssh_authorized_keys,
        "stateroot": args.stateroot,
        "enforce_sigpolicy": args.enforce_container_sigpolicy,
        "fetch_check": args.run_fetch_check,
        "disable_selinux": args.disable_selinux,
        "bootupd_skip_boot_uuid": args.bootupd_skip_boot_uuid,
        "dry_run": args.dry_run,
    }


def print_configuration(args: argparse.Namespace, context: Context) -> None:
    """Print the merged install configuration."""
    import os

    from bootc.cli.render.structured import render_json
    from bootc.deploy.install.config import external_view, read_merged

    merged = read_merged(os.uname().machine)
    context.write(render_json(external_view(merged, everything=args.all)))


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
    from bootc.boot.esp_size import parse_size

    try:
        return parse_size(text)
    except ValueError as exc:
        raise Error(f"--root-size: {exc}") from None


_SOURCE = (
    Option(
        ("--source-imgref",),
        "The image to install: oci:DIR:TAG, docker://HOST/REPO:TAG, … (default: the "
        "image of this container).",
        metavar="IMAGE",
    ),
)
_TARGET = (
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
    Option(("--target-no-signature-verification",), "No effect.", default=False, hidden=True),
    Option(
        ("--enforce-container-sigpolicy",),
        "Demand that skopeo verifies a signature by policy.json, now and at each update.",
        default=False,
    ),
    Option(
        ("--run-fetch-check",),
        "Make sure first that the image for updates can be fetched.",
        default=False,
    ),
    Option(("--skip-fetch-check",), "No effect: there is no check by default.", default=False),
)
_CONFIGURATION = (
    Option(
        ("--bootloader",),
        "The boot loader: systemd, grub, ukiboot or none (default: the first that the image has).",
        metavar="NAME",
        choices=_BOOTLOADERS,
    ),
    Option(
        ("--bootupd-skip-boot-uuid",),
        "If bootupd installs GRUB: do not write the UUID of the file system with /boot.",
        default=False,
    ),
    Option(
        ("--karg",),
        "Add a kernel argument; may be repeated.",
        metavar="ARG",
        default=(),
        takes_empty=True,
    ),
    Option(
        ("--karg-delete",),
        "Leave out a kernel argument of the configuration or of the image: KEY or KEY=VALUE; "
        "may be repeated.",
        metavar="ARG",
        default=(),
    ),
    Option(
        ("--root-ssh-authorized-keys",),
        "A file of SSH keys with which root can log in.",
        metavar="FILE",
    ),
    Option(("--disable-selinux",), "Turn SELinux off on the installed machine.", default=False),
    Option(
        ("--generic-image",),
        "The disk will boot on another machine: do not change this machine's firmware; with GRUB, "
        "write it for UEFI and BIOS.",
        default=False,
    ),
    Option(
        ("--bound-images",),
        "skip accepts that bound images are not installed; stored and pull refuse an image that "
        "has bound images.",
        metavar="MODE",
        choices=_BOUND_IMAGES,
    ),
    Option(
        ("--stateroot",), "The name of the state root; the only one is default.", metavar="NAME"
    ),
    Option(("--dry-run",), "Check everything, print the steps, and change nothing.", default=False),
)
_COMPOSEFS = (
    Option(
        ("--composefs-backend",),
        "Use the composefs-native layout (the default; there is no other).",
        default=False,
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
        ("--boot-type",),
        "How the machine boots: bls takes a unified kernel image apart, uki demands one "
        "(default: what the image has).",
        metavar="TYPE",
        choices=_BOOT_TYPES,
    ),
    Option(
        ("--disable-sealing",),
        "With --boot-type bls: take a sealed unified kernel image apart, too.",
        default=False,
    ),
)

_ACKNOWLEDGE = Option(
    ("--acknowledge-destructive",),
    "Do not wait 20 seconds before the running system is overwritten.",
    default=False,
)

_COMMAND = Command(
    name="install",
    help="Install an image.",
    commands=(
        Command(
            name="to-disk",
            help="Install an image on a whole disk. Everything on the disk is lost.",
            options=(
                Option(("device",), "The disk, for example /dev/vda.", metavar="DEVICE"),
                *_SOURCE,
                *_TARGET,
                *_CONFIGURATION,
                *_COMPOSEFS,
                Option(
                    ("--block-setup",),
                    "The block setup; the only one is direct.",
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
                    ("--via-loopback",),
                    "DEVICE is a file, which becomes the image of a disk.",
                    default=False,
                ),
            ),
            run=to_disk,
        ),
        Command(
            name="to-filesystem",
            help="Install an image to mounted file systems.",
            options=(
                Option(("root",), "The mount point of the root file system.", metavar="ROOT"),
                *_SOURCE,
                *_TARGET,
                *_CONFIGURATION,
                *_COMPOSEFS,
                Option(
                    ("--root-mount-spec",),
                    "The value of root= for the kernel; empty for none (default: the UUID).",
                    metavar="SPEC",
                    takes_empty=True,
                ),
                Option(
                    ("--boot-mount-spec",),
                    "The source of a separate /boot; empty for none (default: its UUID).",
                    metavar="SPEC",
                    takes_empty=True,
                ),
                Option(
                    ("--replace",),
                    "Accept content: wipe removes it, alongside keeps all but the boot partitions.",
                    metavar="MODE",
                    choices=_REPLACE,
                ),
                _ACKNOWLEDGE,
                Option(
                    ("--skip-finalize",),
                    "Leave the file systems writable; bootc install finalize comes later.",
                    default=False,
                ),
            ),
            run=to_filesystem,
        ),
        Command(
            name="to-existing-root",
            help="Install an image in place of the running system.",
            options=(
                Option(
                    ("root",),
                    "Where the root of the running system is mounted (default: /target, or a "
                    "mount of its own).",
                    metavar="ROOT",
                    optional=True,
                ),
                *_SOURCE,
                *_TARGET,
                *_CONFIGURATION,
                *_COMPOSEFS,
                Option(
                    ("--replace",),
                    "wipe removes the content of the root file system, alongside keeps it "
                    "(default: alongside).",
                    metavar="MODE",
                    choices=_REPLACE,
                    default="alongside",
                ),
                _ACKNOWLEDGE,
                Option(
                    ("--cleanup",),
                    "Have the installed system remove the old one at its first boot, except for "
                    "configuration and data.",
                    default=False,
                ),
            ),
            run=to_existing_root,
        ),
        Command(
            name="finalize",
            help="Write back the file systems of to-filesystem --skip-finalize.",
            options=(
                Option(("root",), "The mount point of the root file system.", metavar="ROOT"),
            ),
            run=finalize,
        ),
        Command(
            name="ensure-completion",
            help="Refused: it completes an installation of ostree.",
            run=ensure_completion,
            hidden=True,
        ),
        Command(
            name="print-configuration",
            help="Print the merged install configuration as JSON.",
            options=(
                Option(
                    ("--all",),
                    "Include the kernel arguments, which the installer itself applies.",
                    default=False,
                ),
            ),
            run=print_configuration,
        ),
    ),
)

COMMANDS = (_COMMAND,)
