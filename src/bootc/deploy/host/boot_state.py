"""How the running system was booted, from the state of the kernel and of ``/run``.

Owns volatile state: the mount table, the kernel command line, the firmware's loader variable,
and the directory ``/run/composefs`` with the marker of a staged deployment and the result of the
last look at the registry. ``bootc.deploy.host.view`` reads the disks. :class:`BootedState` is a
value, so tests of its consequences boot nothing.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import LoaderTraces, read_traces
from bootc.boot.secure_boot import SecureBoot, read_secure_boot
from bootc.deploy.host import notes
from bootc.deploy.host.model import ImageStatus, UsrOverlay
from bootc.errors import Error, doing, one_line
from bootc.formats.cmdline import CmdlineError, ComposefsImages, composefs_images
from bootc.formats.digest import Digest, DigestError
from bootc.fs import atomic
from bootc.fs.dir import Dir
from bootc.fs.mounts import Mount, read_mounts
from bootc.kernel import proc

_log = logging.getLogger(__name__)

#: The directory in which a staged deployment is announced, and the name of the announcement.
STAGED_DIRECTORY = "run/composefs"
STAGED_MARKER_NAME = "staged-deployment"
_IMAGE_SOURCE = "composefs:"
#: The option of such a mount that has the kernel refuse files without fs-verity.
_VERIFIES = "verity=require"
#: The source of a root that is mounted from an image; the second form has a writable layer.
_ROOT_SOURCE = re.compile(r"(?:composefs:|transient:composefs=)([0-9a-f]+)\Z")
_CONTAINER_MARKS = ("run/.containerenv", ".dockerenv")
_SELINUX = "sys/fs/selinux/enforce"
_MAX_MARKER_BYTES = 1 << 16

_T = TypeVar("_T")


class MarkerError(Error):
    """The marker of a staged deployment is malformed."""


class NotBootedFromImage(Error):
    """The kernel command line names an image, but the root is not mounted from it."""


@dataclass(frozen=True, slots=True)
class Staged:
    """The deployment to boot next. ``locked`` means it was only downloaded."""

    image_id: Digest
    locked: bool


@dataclass(frozen=True, slots=True)
class BootedState:
    """How this system was booted through composefs.

    Attributes:
        image_id: The id of the deployment.
        also: Further images that the kernel command line names: the tree of the deployment in
            other versions of the image format. One of them may be mounted.
    """

    image_id: Digest
    missing_verity_allowed: bool
    loader: LoaderTraces
    staged: Staged | None = None
    usr_overlay: UsrOverlay | None = None
    #: The kernel's own.
    cmdline: str = ""
    #: The running system uses SELinux, so the policy belongs to what runs.
    selinux: bool = False
    findings: tuple[Finding, ...] = ()
    also: tuple[Digest, ...] = ()
    secure_boot: SecureBoot = field(default_factory=SecureBoot)
    #: The kernel reads no file of the root without comparing it; None if that is not known.
    files_verified: bool | None = None


def read_booted_state(*, root: str = "/") -> BootedState | None:
    """Return how the system mounted at ``root`` was booted, or None if not through composefs.

    Raises:
        NotBootedFromImage: the kernel command line names an image that is not the root.
        OSError: one of the sources cannot be read.
    """
    with doing("Reading how this system was booted"):
        # A boot loader can put any byte into the command line, also a newline.
        raw = b"\n".join(proc.read_table(os.path.join(root, "proc/cmdline")))
        cmdline = raw.decode("utf-8", "replace")
        named = _named_images(cmdline)
        mounts = read_mounts()
        mounted = booted_image(mounts, root)
        if mounted is None:
            if named is not None and not in_container(root):
                raise NotBootedFromImage(
                    f"the kernel command line names image {named.deployment}, "
                    f"but {root} is not mounted from it"
                )
            return None
        findings: list[Finding] = []
        image_id, *also = deployment_ids(mounted, named, root)
        return BootedState(
            image_id=image_id,
            # Also after a soft reboot, when another image runs than the arguments name.
            missing_verity_allowed=named is not None and named.optional,
            loader=_read_firmware(read_traces, LoaderTraces(), "LoaderInfo", findings),
            staged=_staged(os.path.join(root, STAGED_DIRECTORY)),
            usr_overlay=_usr_overlay(mounts, os.path.join(root, "usr")),
            cmdline=cmdline.strip(),
            selinux=os.path.exists(os.path.join(root, _SELINUX)),
            findings=tuple(findings),
            also=tuple(also),
            secure_boot=_read_firmware(read_secure_boot, SecureBoot(), "SecureBoot", findings),
            files_verified=files_verified(mounts, root),
        )


def deployment_ids(
    mounted: Digest, named: ComposefsImages | None, root: str = "/"
) -> tuple[Digest, ...]:
    """Return the ids of the booted deployment, first the one that its state has.

    This repeats the choice of the initramfs (:mod:`bootc.initramfs.setup_root`). After a soft
    reboot the command line names another deployment.

    Args:
        mounted: The image that the root is mounted from.
        named: The images that the kernel command line names.
        root: The root of the system.
    """
    if named is None or mounted.hex not in named.hexes:
        return (mounted,)
    # The generator, which runs at every boot, imports this module and needs none of that.
    from bootc.deploy.host import statedir

    ids = map(Digest.from_hex, named.ids)
    sysroot = os.path.join(root, "sysroot")
    return tuple(sorted(ids, key=lambda image_id: not statedir.has_state(sysroot, image_id)))


def files_verified(mounts: Sequence[Mount], root: str = "/") -> bool | None:
    """Tell whether the kernel compares every file of the root with the digest in its image.

    The result is None if the topmost mount has a writable layer: its lower layers are in no table.
    """
    tops = [entry for entry in mounts if entry.path == root]
    if not tops or not tops[-1].source.startswith(_IMAGE_SOURCE):
        return None
    return _VERIFIES in tops[-1].options


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


def parse_staged(data: bytes) -> Staged:
    """Parse the marker of a staged deployment.

    Raises:
        MarkerError: it is malformed.
    """
    try:
        value = json.loads(data)
        return Staged(Digest.from_hex(value["depl_id"]), value["finalization_locked"] is True)
    except (ValueError, RecursionError, LookupError, TypeError, DigestError) as exc:
        raise MarkerError(f"it is no marker of a staged deployment: {exc!r:.200}") from None


def in_container(root: str) -> bool:
    """Tell whether this process runs in a container."""
    # A container sees the host's command line, which says nothing about the container's root.
    marks = (os.path.join(root, mark) for mark in _CONTAINER_MARKS)
    return "container" in os.environ or any(os.path.exists(mark) for mark in marks)


def read_staged(directory: Dir) -> Staged | None:
    """Read the marker of a staged deployment from the directory where they are announced.

    Raises:
        MarkerError: it is malformed.
        OSError: it cannot be read.
    """
    try:
        return parse_staged(directory.read_bytes(STAGED_MARKER_NAME, _MAX_MARKER_BYTES))
    except FileNotFoundError:
        return None


def read_cached_update(run: Dir) -> ImageStatus | None:
    """Return the image that the last look at the registry since the boot found, or None.

    Args:
        run: ``/run/composefs``.

    Raises:
        MalformedNote: the note is malformed.
        OSError: the note cannot be read.
    """
    try:
        data = run.read_bytes(notes.CACHED_UPDATE, notes.MAX_NOTE_BYTES)
    except FileNotFoundError:
        return None
    return notes.parse_cached_update(data)


def write_cached_update(run: Dir, update: ImageStatus) -> None:
    """Write down which image a look at the registry found, even if it is the booted one.

    The note is in memory, because a look at the registry changes no disk.
    """
    with doing(f"Recording the available update in {run.path}"):
        data = notes.serialise_cached_update(update)
        atomic.write_file(run, notes.CACHED_UPDATE, data, durable=False)


def _named_images(cmdline: str) -> ComposefsImages | None:
    try:
        return composefs_images(cmdline)
    except CmdlineError as exc:
        _log.debug("%s", exc)
        return None


def _read_firmware(
    read: Callable[[], _T], unknown: _T, variable: str, findings: list[Finding]
) -> _T:
    try:
        return read()
    except OSError as exc:
        findings.append(Finding(FindingKind.UNREADABLE, variable, one_line(exc)))
        return unknown


def _staged(path: str) -> Staged | None:
    try:
        with Dir.open(path) as directory:
            return read_staged(directory)
    except (OSError, MarkerError) as exc:
        # Whoever gathers all there is to know reads it once more, and says so.
        _log.debug("nothing is staged: %s", exc)
        return None


def _usr_overlay(mounts: Sequence[Mount], usr: str) -> UsrOverlay | None:
    if not any(entry.path == usr for entry in mounts):
        return None
    read_only = os.statvfs(usr).f_flag & os.ST_RDONLY
    return UsrOverlay("readOnly" if read_only else "readWrite")
