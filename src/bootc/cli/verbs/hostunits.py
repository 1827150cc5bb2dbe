"""Verbs of ``bootc internals`` that units, a generator and installers call.

The units and the generator are in ``data/systemd`` of the source.
"""

from __future__ import annotations

import argparse

from bootc.cli.options import Command, Context, Option


def systemd_generator(args: argparse.Namespace, context: Context) -> None:
    """Write the units and links of this boot."""
    from bootc.deploy.host.boot_units import generate
    from bootc.fs.mounts import read_mounts

    generate(args.normal, read_mounts())


def sysusers_sync(args: argparse.Namespace, context: Context) -> None:
    """Remove password entries without an account."""
    from bootc.deploy.host.accounts import remove_orphans

    remove_orphans(context.sink)


def fixup_etc_fstab(args: argparse.Namespace, context: Context) -> None:
    """Make the root file system read-only in fstab."""
    from bootc.deploy.host.etc_fstab import make_root_read_only

    make_root_read_only(context.sink)


def relabel_overlay_mountpoints(args: argparse.Namespace, context: Context) -> None:
    """Label the top directories of writable overlays."""
    from bootc.deploy.host.overlay_labels import relabel_overlays

    relabel_overlays(context.sink)


def refresh_boot_menu(args: argparse.Namespace, context: Context) -> None:
    """Give the firmware the boot entries that it has lost, or mark the slot of ukiboot."""
    from bootc.cli.session import open_host
    from bootc.deploy.refresh import refresh_menu

    with open_host(context.sink) as system:
        refresh_menu(system, context.sink)


def remove_old_root(args: argparse.Namespace, context: Context) -> None:
    """Remove the system that this one replaced, if the installer was asked to."""
    from bootc.cli.session import open_host
    from bootc.deploy import old_root

    with open_host(context.sink) as system:
        old_root.remove_old_root(system, context.sink)


COMMANDS = (
    Command(
        name="systemd-generator",
        help="Write the units of this boot. systemd runs this command.",
        options=(
            Option(("normal",), "The directory for units of normal priority.", "NORMAL"),
            Option(("early",), "Has no effect.", "EARLY", optional=True),
            Option(("late",), "Has no effect.", "LATE", optional=True),
        ),
        run=systemd_generator,
    ),
    Command(
        name="sysusers-sync",
        help="Remove entries of /etc/shadow and /etc/gshadow that belong to no account.",
        run=sysusers_sync,
    ),
    Command(
        name="fixup-etc-fstab",
        help="Make the root file system read-only in /etc/fstab.",
        run=fixup_etc_fstab,
    ),
    Command(
        name="relabel-overlay-mountpoints",
        help="Give writable overlays over /, /etc and /var their SELinux labels.",
        run=relabel_overlay_mountpoints,
    ),
    Command(
        name="refresh-boot-menu",
        help="Write the boot entries that the firmware has lost, or mark the slot of ukiboot.",
        run=refresh_boot_menu,
    ),
    Command(
        name="remove-old-root",
        help="Remove the system that bootc install to-existing-root --cleanup replaced.",
        run=remove_old_root,
    ),
)
