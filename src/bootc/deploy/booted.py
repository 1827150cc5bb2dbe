"""What the running system says about how it was booted.

Owns the reading of volatile state: the mount table, the kernel command line, the
firmware's loader variable and the marker of a staged deployment. Everything on
disks is the business of ``bootc.deploy.sysroot``. :class:`BootedState` is a value,
so that what follows from it can be tested without booting anything.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from bootc.boot.systemd_boot import Bootloader, running_bootloader
from bootc.deploy.model import UsrOverlay
from bootc.errors import Error, doing
from bootc.formats.cmdline import CmdlineError, ComposefsArgument, composefs_argument
from bootc.formats.digest import Digest, DigestError
from bootc.fs.mounts import Mount, read_mounts

_log = logging.getLogger(__name__)

STAGED_MARKER = "run/composefs/staged-deployment"
#: What a root mounted from an image calls its source; the second has a writable layer on top.
_ROOT_SOURCE = re.compile(r"(?:composefs:|transient:composefs=)([0-9a-f]+)\Z")
_CONTAINER_MARKS = ("run/.containerenv", ".dockerenv")


class NotBootedFromImage(Error):
    """The kernel command line names an image, but another root is running."""


@dataclass(frozen=True, slots=True)
class Staged:
    """The deployment to boot next. ``locked`` means it was only downloaded."""

    image_id: Digest
    locked: bool


@dataclass(frozen=True, slots=True)
class BootedState:
    """How this system was booted through composefs."""

    image_id: Digest
    missing_verity_allowed: bool
    bootloader: Bootloader
    staged: Staged | None = None
    usr_overlay: UsrOverlay | None = None


def read_booted_state(*, root: str = "/") -> BootedState | None:
    """Return how the system mounted at ``root`` was booted, or None if not through composefs.

    Raises:
        NotBootedFromImage: an image was to be booted, and is not what runs.
        OSError: a source of this knowledge cannot be read.
    """
    with doing("Reading how this system was booted"):
        with open(os.path.join(root, "proc/cmdline"), encoding="utf-8", errors="replace") as file:
            argument = _argument(file.read())
        mounts = read_mounts()
        image_id = booted_image(mounts, root)
        if image_id is None:
            if argument is not None and not _in_container(root):
                raise NotBootedFromImage(
                    f"the kernel command line names image {argument.hex}, "
                    f"but {root} is not mounted from it"
                )
            return None
        return BootedState(
            image_id=image_id,
            # Kept after a soft reboot, when the running image is another than the argument's.
            missing_verity_allowed=argument is not None and argument.optional,
            bootloader=running_bootloader(),
            staged=_read_staged(os.path.join(root, STAGED_MARKER)),
            usr_overlay=_usr_overlay(mounts, os.path.join(root, "usr")),
        )


def booted_image(mounts: Sequence[Mount], root: str = "/") -> Digest | None:
    """Return the image that the topmost mount at ``root`` was made from."""
    sources = [entry.source for entry in mounts if entry.path == root]
    match = _ROOT_SOURCE.match(sources[-1]) if sources else None
    if match is None:
        return None
    try:
        return Digest.from_hex(match[1])
    except DigestError:
        return None


def parse_staged(data: bytes) -> Staged | None:
    """Parse the marker of a staged deployment, or return None where it is malformed."""
    try:
        value = json.loads(data)
        return Staged(Digest.from_hex(value["depl_id"]), value["finalization_locked"] is True)
    except (ValueError, RecursionError, LookupError, TypeError, DigestError) as exc:
        _log.warning("ignoring the staged deployment: its marker is malformed (%r)", exc)
        return None


def _argument(cmdline: str) -> ComposefsArgument | None:
    try:
        return composefs_argument(cmdline)
    except CmdlineError as exc:
        _log.debug("%s", exc)
        return None


def _read_staged(path: str) -> Staged | None:
    try:
        with open(path, "rb") as file:
            return parse_staged(file.read())
    except FileNotFoundError:
        return None


def _usr_overlay(mounts: Sequence[Mount], usr: str) -> UsrOverlay | None:
    if not any(entry.path == usr for entry in mounts):
        return None
    read_only = os.statvfs(usr).f_flag & os.ST_RDONLY
    return UsrOverlay("readOnly" if read_only else "readWrite")


def _in_container(root: str) -> bool:
    # The command line is the host's there, and says nothing about the container's root.
    marks = (os.path.join(root, mark) for mark in _CONTAINER_MARKS)
    return "container" in os.environ or any(os.path.exists(mark) for mark in marks)
