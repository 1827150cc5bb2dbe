"""Checks of an image that shall be deployed, for installations and for updates."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from functools import partial

from bootc.boot.kargs import KARGS_D, KargsError, read_kargs_d
from bootc.errors import Error, doing, one_line
from bootc.events import Message, Sink
from bootc.formats.digest import Digest
from bootc.formats.ocispec import ImageConfig
from bootc.formats.osrelease import OsRelease, parse_os_release
from bootc.formats.tree import Directory, External, Inline, Leaf
from bootc.oci.pull import required_bytes
from bootc.oci.source import Source
from bootc.repository.content import read_content, read_image_tree
from bootc.repository.repository import Repository

_log = logging.getLogger(__name__)

#: What images for bootc have.
_LABEL = "containers.bootc"
_OS_RELEASE = "usr/lib/os-release"
_OS_RELEASE_MAX_BYTES = 1 << 20
_KARGS_D_MAX_BYTES = 1 << 20


class InsufficientSpace(Error):
    """The file system of the repository cannot take the image."""


def check_space(repository: Repository, source: Source) -> None:
    """Check that the missing layers fit into the file system of the repository.

    Raises:
        InsufficientSpace: they do not fit; the message has both sizes.
    """
    volume = os.statvfs(repository.dir.fileno())
    available = volume.f_frsize * volume.f_bavail
    required = required_bytes(source, repository)
    if available < required:
        raise InsufficientSpace(
            f"Insufficient free space for {source.imgref} "
            f"(available: {available} required: {required})",
            hint="make room in the file system of /sysroot, or delete a deployment",
        )


def note_label(source: Source, sink: Sink) -> None:
    """Send a notice, before the pull, if an image has no label of a bootc image.

    This is only a notice, as in upstream: a kernel in the image decides.

    Raises:
        ImageSpecError: its configuration is malformed.
    """
    if ImageConfig.parse(source.config_raw).labels.get(_LABEL) != "1":
        sink(Message(f"notice: {source.imgref} may be no operating system: no label {_LABEL}=1"))


def description_of(repository: Repository, images: Sequence[Digest]) -> Directory:
    """Return the part of a deployment's tree that the two functions below need.

    Args:
        repository: The repository.
        images: The images of the deployment. The first that the repository has is read.

    Raises:
        InvalidImage, VerityMissing, ObjectCorrupt: its image is damaged.
        OSError: it cannot be read.
    """
    image = repository.images.first_present(images)
    return read_image_tree(repository.objects, image, below=[_OS_RELEASE, KARGS_D])


def os_release_of(repository: Repository, root: Directory) -> OsRelease:
    """Return the os-release of an image; an empty one if the image has no such file."""
    node = root.lookup(_OS_RELEASE)
    if not isinstance(node, Leaf) or not isinstance(node.content, Inline | External):
        return OsRelease({})
    with doing(f"Reading {_OS_RELEASE} of the image"):
        data = read_content(repository.objects, node.content, limit=_OS_RELEASE_MAX_BYTES)
    return parse_os_release(data)


def kargs_d_of(repository: Repository, root: Directory) -> tuple[str, ...]:
    """Return the kernel arguments that a new image asks for on this machine.

    Raises:
        KargsError: a file is malformed, or has an argument that no entry may get.
        OSError: a file cannot be read.
    """
    return _kargs_d(repository, root, checked=True)


def kargs_d_of_deployed(repository: Repository, root: Directory) -> tuple[str, ...]:
    """Return the kernel arguments that the image of an existing deployment asked for.

    A malformed file must not keep the machine from a better image. Arguments that cannot be
    read count as the administrator's own, and are kept.

    Raises:
        OSError: a file cannot be read.
    """
    try:
        return _kargs_d(repository, root, checked=False)
    except KargsError as exc:
        _log.warning("kernel arguments of a deployed image are not known: %s", one_line(exc))
        return ()


def _kargs_d(repository: Repository, root: Directory, *, checked: bool) -> tuple[str, ...]:
    read = partial(read_content, repository.objects, limit=_KARGS_D_MAX_BYTES)
    return tuple(read_kargs_d(root, read, os.uname().machine, checked=checked))
