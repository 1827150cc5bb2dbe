"""The part of an installation that is the same for a disk and for mounted file systems.

A :class:`Destination` prepares the file systems. :func:`install` checks the image, has the
destination opened, and installs the image into it. Promises:

- Everything that can be checked before the destination changes is checked before.
- The commit point is the boot entry, the last file that ``deploy_image`` writes. A failure or an
  interruption before it undoes the changes as far as the destination can. After it the
  destination boots; a later failure is reported, and nothing is undone.
- Everything is on the disk before the message "Installation complete!".

The process remains in a mount namespace of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from bootc.deploy.bootable import note_label
from bootc.deploy.install import bound_images, checks, loaders
from bootc.deploy.install.checks import Decisions
from bootc.deploy.install.checks_image import check_last_layer, find_in_image, find_in_tree
from bootc.deploy.install.config import InstallConfig
from bootc.deploy.install.deploy_image import deploy_image
from bootc.deploy.install.loader_choice import with_found_loader
from bootc.deploy.install.loader_installer import BootTarget
from bootc.deploy.install.request import Installed, InstallRequest
from bootc.errors import doing
from bootc.events import Message, Sink, stage
from bootc.formats.origin import Signature
from bootc.fs import mounts
from bootc.fs.imageroot import ImageRoot
from bootc.oci import sigpolicy
from bootc.oci.pull import Pulled, required_bytes
from bootc.oci.source import Source, open_source
from bootc.sizes import human_size

_Request = TypeVar("_Request", bound=InstallRequest)


@dataclass(frozen=True, slots=True)
class Opened:
    """A destination that is ready to be written.

    Attributes:
        target: Its file systems.
        keep: Call it after the commit point: from then on a failure undoes nothing.
        finalize: Writes the file systems back, and makes them ready to be unmounted.
        clear_boot: Empties the boot partitions; None if their content stays.
        places: Lines for the summary: which file system is where.
    """

    target: BootTarget
    keep: Callable[[], None]
    finalize: Callable[[], None]
    clear_boot: Callable[[], None] | None = None
    places: Sequence[str] = ()


class Destination(Protocol):
    """The place of an installation: a disk, or mounted file systems."""

    @property
    def decisions(self) -> Decisions:
        """The choices for this destination."""

    @property
    def facts(self) -> Sequence[str]:
        """Lines that describe it before the installation."""

    @property
    def steps(self) -> Sequence[str]:
        """The steps that prepare it, for ``--dry-run``."""

    def check_room(self, needed_mib: int) -> None:
        """Check that the root file system has room for an image.

        Raises:
            InstallRefused: it has not.
        """

    def opened(self, sink: Sink) -> AbstractContextManager[Opened]:
        """Prepare it, and mount its file systems for as long as the block runs.

        Raises:
            Error, OSError: preparing failed.
        """


def install(request: InstallRequest, destination: Destination, sink: Sink) -> Installed | None:
    """Install an image to a destination; return None after a dry run.

    Raises:
        InstallRefused: the request cannot be met. Nothing was changed.
        Error, OSError: the installation failed.
    """
    decisions = destination.decisions
    # Updates from a target whose signatures nobody checks would be refused from then on.
    sigpolicy.require_checkable(request.target, decisions.signature)
    if request.fetch_check:
        with (
            doing("Checking that the image for updates can be fetched"),
            open_source(request.target, decisions.signature),
        ):
            pass
    with open_source(request.source, decisions.signature) as source:
        checks.check_platform(decisions, source)
        destination.check_room(checks.needed_mib(source))
        check_last_layer(request, decisions, source)
        request = _check_loader(request, decisions, source)
        _check_bound_images(request)
        _announce(request, destination, source, sink)
        if request.dry_run:
            for number, step in enumerate(_steps(request, destination, source), 1):
                sink(Message(f"{number}. {step}"))
            return None
        if not request.from_container:
            mounts.private_mount_namespace()
        with destination.opened(sink) as opened:
            pulled = deploy_image(
                request,
                decisions,
                source,
                opened.target,
                sink,
                clear_boot=opened.clear_boot,
                keep=opened.keep,
            )
            with stage(sink, "finalize", "Finalizing the file systems"):
                opened.finalize()
    for line in (*_summary(request, decisions, pulled), *opened.places):
        sink(Message(line))
    sink(Message("Installation complete!"))
    return Installed(pulled.image_id, pulled.manifest_digest, decisions.loader.name)


def choose_by_image(request: _Request, config: InstallConfig, machine: str) -> _Request:
    """Return a request with the boot loader that the image has, unless a loader is named.

    Raises:
        InstallRefused: the image has no loader that starts the machine.
        Error, OSError: the image cannot be read.
    """

    def find(paths: Collection[str], until: Callable[[Collection[str]], bool]) -> Collection[str]:
        if request.from_container:
            return _in_container(paths)
        signed = request.enforce_sigpolicy or config.enforce_sigpolicy
        with (
            doing("Looking for the boot loader of the image"),
            open_source(request.source, Signature() if signed else None) as source,
        ):
            return find_in_image(source, paths, until=until)

    return with_found_loader(request, config, machine, find)


def _check_loader(request: InstallRequest, decisions: Decisions, source: Source) -> InstallRequest:
    """Return the request with the files of its loader that the image has."""
    if request.found_loader is not None and request.found_loader[0] == decisions.loader.name:
        return request  # The image was searched for it.

    def has(paths: Collection[str]) -> Collection[str]:
        return _in_container(paths) if request.from_container else find_in_image(source, paths)

    found = loaders.require_in_image(
        decisions.loader, decisions.machine, has, installs_itself=request.from_container
    )
    return dataclasses.replace(request, found_files=frozenset(found))


def _check_bound_images(request: InstallRequest) -> None:
    """Refuse bound images that the user asks for, if the image is that of this container."""
    if request.from_container and request.bound_images is not None:
        with ImageRoot.open("/") as root:
            bound_images.check(request.bound_images, bound_images.names_in_root(root))


def _in_container(paths: Collection[str]) -> Collection[str]:
    """Return those of several paths that the container has: the files of its image."""
    with ImageRoot.open("/") as root:
        return find_in_tree(root, paths)


def _announce(
    request: InstallRequest, destination: Destination, source: Source, sink: Sink
) -> None:
    for line in (
        f"Installing image: {request.target}",
        f"Digest: {source.manifest_digest}",
        *destination.facts,
    ):
        sink(Message(line))
    policy = sigpolicy.enforced_policy(request.source, destination.decisions.signature)
    if policy is not None:
        sink(Message(policy.notice))
    _note_boot_uuid(request, destination.decisions, sink)
    note_label(source, sink)


def _note_boot_uuid(request: InstallRequest, decisions: Decisions, sink: Sink) -> None:
    loader = decisions.loader
    if not decisions.skip_boot_uuid:
        return
    if loader.is_by_bootupd(request.found_files.__contains__):
        text = (
            "GRUB will look for a file system with the label boot, because bootupd writes no UUID"
        )
        sink(Message(f"notice: {text}"))
    elif request.bootupd_skip_boot_uuid:
        text = f"bootupd does not install {loader.title} of this image"
        sink(Message(f"notice: --bootupd-skip-boot-uuid has no effect: {text}"))


def _steps(request: InstallRequest, destination: Destination, source: Source) -> Iterator[str]:
    decisions = destination.decisions
    loader = decisions.loader
    size = human_size(required_bytes(source))
    yield from destination.steps
    yield f"Pull {source.imgref} ({len(source.layers)} layers, {size})"
    yield f"Install {_loader(request, decisions)} from the image"
    yield f"Write the kernel to {loader.kernel_place}"
    yield "Write /etc and /var of the deployment"
    yield "Write the boot entry; from then on the machine boots the image"
    yield "Write everything back, and unmount"


def _summary(request: InstallRequest, decisions: Decisions, pulled: Pulled) -> Iterator[str]:
    yield f"  Deployment: {pulled.image_id}"
    yield f"       Image: {request.source}"
    yield f"      Digest: {pulled.manifest_digest}"
    yield f"     Updates: {request.target}"
    yield f"      Loader: {_loader(request, decisions)}"
    yield f"      Verity: {_verity(request, decisions)}"


def _loader(request: InstallRequest, decisions: Decisions) -> str:
    title = decisions.loader.title_in(request.found_files.__contains__)
    if request.found_loader is None:
        return title
    return f"{title} (chosen because {request.found_loader[1]})"


def _verity(request: InstallRequest, decisions: Decisions) -> str:
    if not decisions.allow_missing_verity:
        return "required at each boot"
    if not decisions.filesystem.supports_verity:
        return f"not required: {decisions.filesystem} has no fs-verity"
    return "not required, because of --allow-missing-verity"
