"""``bootc switch``: another image, and updates from there."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from bootc.cli.options import TRANSPORT_NAMES, Command, Context, Option
from bootc.cli.session import (
    ALLOW_WEAKER,
    APPLY,
    DRY_RUN_THAT_PULLS,
    ETC_CONFLICT,
    NO_WAIT,
    PROGRESS_FD,
    QUIET,
    open_host,
    reporting,
    view_host,
)
from bootc.errors import Error
from bootc.events import Message

if TYPE_CHECKING:
    from bootc.deploy.host.model import ImageSpec

_ONE_STORAGE = (
    "--experimental-unified-storage has no effect: images are only in the composefs repository"
)
_DEFAULT_TRANSPORT = "registry"
#: Those whose images lie below a path of this machine.
_LOCAL = ("oci", "oci-archive", "docker-archive", "dir")


def run(args: argparse.Namespace, context: Context) -> None:
    """Stage another image."""
    if args.mutate_in_place:
        raise Error(
            "--mutate-in-place changes a deployment of ostree, and this system has none",
            hint="leave out the option: the image is staged for the next boot",
        )
    target = _target(args)
    from bootc.deploy.etc.merge import ConflictPolicy
    from bootc.deploy.upgrade import UpdateOptions, switch

    options = UpdateOptions(
        apply=args.apply,
        dry_run=args.dry_run,
        etc_conflict=ConflictPolicy(args.etc_conflict or ConflictPolicy.FAIL.value),
        allow_weaker=args.allow_weaker,
    )
    with reporting(args, context) as sink:
        if args.experimental_unified_storage:
            sink(Message(_ONE_STORAGE))
        if args.dry_run:
            with view_host(sink, pulls=True, wait=not args.no_wait) as view:
                switch(view, target, options, sink, retain=args.retain)
            return
        with open_host(sink, wait=not args.no_wait) as system:
            boots_next = switch(system, target, options, sink, retain=args.retain)
    if boots_next and args.apply:
        from bootc.deploy.host.services import reboot

        reboot()


def _target(args: argparse.Namespace) -> ImageSpec:
    """Return the image that is wanted.

    Raises:
        Error: it is no image, or could not be found again later. As upstream does, this looks at
            the value when the command runs, and does not count it as wrong usage.
    """
    from bootc.deploy.host.model import ImageSpec
    from bootc.formats.imgref import ImageReference
    from bootc.formats.origin import Signature

    name: str = args.target
    if name.startswith("docker://"):
        raise Error(
            f"{name} has a transport in front", hint=f"write {name.removeprefix('docker://')}"
        )
    reference = ImageReference.of(args.transport, name)
    if reference.transport in _LOCAL and not os.path.isabs(name):
        raise Error(
            f"{name} is relative to this directory, and updates are looked for from another",
            hint="give an absolute path",
        )
    return ImageSpec(reference, Signature() if args.enforce_container_sigpolicy else None)


_COMMAND = Command(
    name="switch",
    help="Download and stage another image, and get updates from there.",
    options=(
        Option(("target",), "The image, for example quay.io/example/os:1.", metavar="TARGET"),
        Option(
            ("--transport",),
            "The transport of the image: registry (the default), oci, containers-storage, ….",
            metavar="TRANSPORT",
            offered=TRANSPORT_NAMES,
            default=_DEFAULT_TRANSPORT,
        ),
        APPLY,
        QUIET,
        Option(
            ("--enforce-container-sigpolicy",),
            "Demand that skopeo verifies a signature by the host's policy.json, now and at each "
            "update. Refused if the policy demands none, and for transports without signatures.",
            default=False,
        ),
        Option(("--retain",), "Pin the booted deployment.", default=False),
        DRY_RUN_THAT_PULLS,
        ETC_CONFLICT,
        ALLOW_WEAKER,
        NO_WAIT,
        PROGRESS_FD,
        Option(
            ("--no-signature-verification",),
            "Has no effect: an option of older versions.",
            default=False,
        ),
        Option(("--experimental-unified-storage",), _ONE_STORAGE, default=False, hidden=True),
        Option(
            ("--mutate-in-place",),
            "Refused: only ostree deployments can be changed in place.",
            default=False,
            hidden=True,
        ),
    ),
    run=run,
)

COMMANDS = (_COMMAND,)
