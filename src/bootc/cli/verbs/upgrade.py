"""``bootc upgrade``: the newest image from where this system's came from."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bootc.cli.options import Command, Context, Option
from bootc.cli.session import (
    ALLOW_WEAKER,
    APPLY,
    DRY_RUN_THAT_PULLS,
    ETC_CONFLICT,
    NO_WAIT,
    PROGRESS_FD,
    QUIET,
    open_host,
    refuse_together,
    reporting,
    view_host,
)

if TYPE_CHECKING:
    from bootc.deploy.host.session import HostAccess
    from bootc.events import Sink


def run(args: argparse.Namespace, context: Context) -> None:
    """Check for, download, stage, release or drop an update."""
    _check_usage(args)
    with reporting(args, context) as sink:
        if args.check or args.dry_run:
            _look(args, context, sink)
            return
        with open_host(sink, wait=not args.no_wait) as system:
            boots_next = _act(args, system, sink)
    if boots_next and args.apply:
        from bootc.deploy.host.services import reboot

        reboot()


def _look(args: argparse.Namespace, context: Context, sink: Sink) -> None:
    """Print whether there is an update, or the steps of the command."""
    if args.check:
        from bootc.cli.render import update_check
        from bootc.deploy.check import check_for_update

        with view_host(sink, notes=True) as view:
            found = check_for_update(view, tag=args.tag)
        context.write("".join(f"{line}\n" for line in update_check.lines(found)))
        return
    pulls = not (args.cancel or args.from_downloaded)
    with view_host(sink, pulls=pulls, wait=not args.no_wait) as view:
        _act(args, view, sink)


def _act(args: argparse.Namespace, system: HostAccess, sink: Sink) -> bool:
    """Do what the options say; return whether another deployment boots next."""
    from bootc.deploy import upgrade
    from bootc.deploy.etc.merge import ConflictPolicy

    if args.cancel:
        upgrade.cancel(system, sink, dry_run=args.dry_run)
        return False
    options = upgrade.UpdateOptions(
        apply=args.apply,
        download_only=args.download_only,
        dry_run=args.dry_run,
        etc_conflict=ConflictPolicy(args.etc_conflict or ConflictPolicy.FAIL.value),
        allow_weaker=args.allow_weaker,
    )
    if args.from_downloaded:
        return upgrade.release(system, options, sink)
    return upgrade.upgrade(system, options, sink, tag=args.tag)


def _check_usage(args: argparse.Namespace) -> None:
    refuse_together(
        args,
        "--check",
        *("--apply", "--download-only", "--from-downloaded", "--cancel"),
        *("--dry-run", "--etc-conflict", "--allow-weaker"),
    )
    refuse_together(args, "--download-only", "--apply", "--from-downloaded", "--cancel")
    # What is downloaded has been told already which image it is, and how it merges.
    refuse_together(args, "--from-downloaded", "--cancel", "--tag", "--etc-conflict")
    refuse_together(args, "--cancel", "--apply", "--tag", "--etc-conflict", "--allow-weaker")


_COMMAND = Command(
    name="upgrade",
    aliases=("update",),
    help="Download and stage the newest image for the next boot.",
    options=(
        QUIET,
        Option(("--check",), "Only say whether there is an update.", default=False),
        APPLY,
        Option(
            ("--download-only",),
            "Stage the update, but do not boot it until --from-downloaded releases it.",
            default=False,
        ),
        Option(
            ("--from-downloaded",),
            "Release the deployment staged with --download-only. Do not look for a newer image.",
            default=False,
        ),
        Option(("--tag",), "Use another tag of the same image.", metavar="TAG"),
        Option(("--cancel",), "Drop the staged deployment.", default=False),
        DRY_RUN_THAT_PULLS,
        ETC_CONFLICT,
        ALLOW_WEAKER,
        NO_WAIT,
        PROGRESS_FD,
    ),
    run=run,
)

COMMANDS = (_COMMAND,)
