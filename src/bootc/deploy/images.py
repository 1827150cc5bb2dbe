"""``bootc image``: lists the images of the deployments, and copies one of them to elsewhere.

A copy changes nothing on the machine: it reads the repository and writes to the target. An
``oci`` target is written directly. Everything else is written by ``skopeo copy``, from a layout
directory below ``/var/tmp`` that the command removes in any case.

Source: bootc, "bootc image copy-to-storage".
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass

from bootc.deploy.host.facts import Facts
from bootc.deploy.host.gather import gather
from bootc.deploy.host.selection import PARTS, deployment_as, find_deployment
from bootc.deploy.host.session import HostAccess
from bootc.errors import Error
from bootc.events import Message, Sink
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.fs import process
from bootc.oci.layout_write import check_output
from bootc.oci.stored import find_image
from bootc.oci.stored_layout import uncompressed_bytes, write_to_layout
from bootc.printable import printable
from bootc.sizes import human_size

#: Not ``/tmp``, which can be in memory: an image has gigabytes.
_SCRATCH = "/var/tmp"
_HINT = "bootc image list shows the images"


class NoSuchImage(Error):
    """No deployment has this image."""


class NoRoom(Error):
    """The image does not fit where it has to be written on its way."""


@dataclass(frozen=True, slots=True)
class HostImage:
    """The image of a deployment.

    Attributes:
        deployment: The deployment.
        roles: The parts that the deployment plays.
        image: The image reference; None if the origin names none.
        manifest: The digest of the manifest; None if the origin names none.
    """

    deployment: Digest
    roles: tuple[str, ...]
    image: ImageReference | None
    manifest: OciDigest | None


def host_images(system: HostAccess) -> tuple[HostImage, ...]:
    """Return the images of all deployments: booted, staged and rollback first.

    Raises:
        Error, OSError: the system cannot be read.
    """
    return _images_of(gather(system))


def _images_of(facts: Facts) -> tuple[HostImage, ...]:
    roles: dict[Digest, list[str]] = {}
    for part in PARTS:
        if (deployment := deployment_as(facts, part)) is not None:
            roles.setdefault(deployment, []).append(part)
    others = sorted({*facts.states, *facts.bootable()} - roles.keys(), key=lambda found: found.hex)
    found = []
    for deployment in (*roles, *others):
        origin = facts.origin(deployment)
        image = None if origin is None else origin.image
        manifest = None if origin is None else origin.manifest_digest
        found.append(HostImage(deployment, tuple(roles.get(deployment, ())), image, manifest))
    return tuple(found)


def copy_image(
    system: HostAccess, source: str | None, target: ImageReference, sink: Sink
) -> OciDigest:
    """Copy the image of a deployment, and return the digest of the manifest that was written.

    Args:
        system: The running system.
        source: The image: the name of the image, with or without its transport, or the
            deployment, as :func:`find_deployment` takes it; None is the booted one.
        target: Where to copy it to.
        sink: Receives the progress.

    Raises:
        NoSuchImage: no deployment has this image, or its origin names no manifest.
        NoRoom: the image does not fit below ``/var/tmp``.
        OutputExists: the target is a layout directory that has such an image.
        Error, OSError: the image cannot be read, or the target cannot be written.
    """
    if target.transport == "oci":
        check_output(target)
    chosen = _chosen(gather(system), source)
    if chosen.manifest is None:
        raise NoSuchImage(f"deployment {chosen.deployment} does not record its image", hint=_HINT)
    repository = system.repository
    image = find_image(repository, str(chosen.manifest))
    size_bytes = uncompressed_bytes(repository, image)
    sink(Message(f"Copying {human_size(size_bytes)} to {target}"))
    if target.transport == "oci":
        return write_to_layout(repository, image, target, sink)
    process.find_tool("skopeo")
    _require_room(size_bytes)
    with tempfile.TemporaryDirectory(prefix="bootc-image-", dir=_SCRATCH) as scratch:
        layout = ImageReference("oci", f"{scratch}/layout:image")
        digest = write_to_layout(repository, image, layout, sink)
        # The image was checked when it was pulled. A policy that forbids layout directories must
        # not forbid this way through one.
        argv = ["skopeo", "--insecure-policy", "copy", "--quiet", str(layout), str(target)]
        process.run(argv)
    return digest


def _chosen(facts: Facts, source: str | None) -> HostImage:
    found = _images_of(facts)
    if source is None:
        (chosen,) = (image for image in found if image.deployment == facts.booted.image_id)
        return chosen
    for image in found:
        if image.image is not None and source in (str(image.image), image.image.name):
            return image
    try:
        deployment = find_deployment(facts, source)
    except Error:
        raise NoSuchImage(f"no deployment has the image {printable(source)}", hint=_HINT) from None
    return next(image for image in found if image.deployment == deployment)


def _require_room(size_bytes: int) -> None:
    """Refuse an image that does not fit, before anything is written."""
    found = os.statvfs(_SCRATCH)
    free_bytes = found.f_bavail * found.f_frsize
    if size_bytes > free_bytes:
        raise NoRoom(
            f"{_SCRATCH} has {human_size(free_bytes)} free, and the image needs "
            f"{human_size(size_bytes)}",
            hint="make room there, or copy to oci:DIRECTORY on another file system",
        )
