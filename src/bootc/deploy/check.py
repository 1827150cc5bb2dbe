"""Whether there is a newer image, and where bootc looks for it.

A check compares the image at its source with the image of the deployment that boots next: the
staged deployment, or else the booted one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from bootc.deploy.host.boot_state import write_cached_update
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.gather import gather, image_facts, image_status
from bootc.deploy.host.model import ImageSpec, ImageStatus
from bootc.deploy.host.session import HostAccess
from bootc.deploy.host.status import wanted_image
from bootc.deploy.protection import booted_protection, staged_losses
from bootc.errors import Error, one_line
from bootc.formats.digest import Digest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import Descriptor, ImageConfig, Manifest
from bootc.formats.origin import Origin
from bootc.oci.documents import read_documents
from bootc.oci.source import Source, open_source

_log = logging.getLogger(__name__)


class NoImageSource(Error):
    """It is not known where to look for updates."""


@dataclass(frozen=True, slots=True)
class Update:
    """An image that is not the one of the deployment that boots next.

    Attributes:
        image: What its documents say.
        old_layers: The layers of that deployment; empty if its manifest cannot be read.
        new_layers: The layers of the image.
        may_protect_less: The booted deployment boots a unified kernel image. The documents of
            an image do not tell whether it has one too.
    """

    image: ImageStatus
    old_layers: tuple[Descriptor, ...]
    new_layers: tuple[Descriptor, ...]
    may_protect_less: bool


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The source has the image of the deployment that boots next.

    Attributes:
        reference: The image.
        staged: That deployment is the staged one.
        losses: What it lacks of the booted deployment's protection, a phrase each.
    """

    reference: ImageReference
    staged: bool
    losses: tuple[str, ...]


def check_for_update(system: HostAccess, *, tag: str | None = None) -> Update | Unchanged:
    """Look for a newer image. This changes no disk.

    If the system was opened with a place for it, the status remembers the image in memory.

    Args:
        system: The system.
        tag: Of the image, in place of the one it has.

    Raises:
        NoImageSource: no image is on record.
        Error: the image cannot be read there.
    """
    facts = gather(system)
    wanted = source_of(facts, tag)
    with open_source(wanted.reference, wanted.signature) as source:
        manifest = Manifest.parse(source.manifest_raw)
        image = image_facts(manifest, ImageConfig.parse(source.config_raw))
        found = image_status(wanted, source.manifest_digest, image)
        if system.run is not None:
            write_cached_update(system.run, found)
        compared = facts.staged_id() or facts.booted.image_id
        if is_image(facts, compared, wanted, source):
            staged = facts.staged_id() is not None
            return Unchanged(wanted.reference, staged, tuple(staged_losses(facts)))
        return Update(
            found,
            old_layers=_layers_of(system, facts.origin(compared)),
            new_layers=manifest.layers,
            may_protect_less=booted_protection(facts).unified,
        )


def source_of(facts: Facts, tag: str | None) -> ImageSpec:
    """Return the image to look for.

    Args:
        facts: The system.
        tag: Of the image, in place of the one it has.

    Raises:
        NoImageSource: no image is on record.
        ImageReferenceError: the image can have no such tag.
    """
    wanted = wanted_image(facts)
    if wanted is None:
        raise NoImageSource(
            "No image source specified: it is not on record where the booted image came from",
            hint="say it once: bootc switch IMAGE",
        )
    if tag is None:
        return wanted
    return ImageSpec(wanted.reference.with_tag(tag), wanted.signature)


def is_image(facts: Facts, deployment: Digest, wanted: ImageSpec, source: Source) -> bool:
    """Tell whether a deployment has the image of a source, and has it from there."""
    origin = facts.origin(deployment)
    return (
        origin is not None
        and origin.manifest_digest == source.manifest_digest
        and origin.image == wanted.reference
        and origin.signature == wanted.signature
    )


def no_changes(reference: ImageReference, *, staged: bool) -> str:
    """Return the sentence that there is no newer image, in upstream's words.

    Args:
        reference: The image.
        staged: The staged deployment has it.
    """
    return f"No changes in{' staged image' if staged else ''}: {shown_name(reference)}"


def shown_name(reference: ImageReference) -> str:
    """Return the name of an image as upstream's ``bootc upgrade`` prints it."""
    if reference.transport == "registry":
        return reference.name
    return f"ostree-unverified-image:{reference}"


def _layers_of(system: HostAccess, origin: Origin | None) -> tuple[Descriptor, ...]:
    """Return the layers of a deployed image; empty if its manifest cannot be read."""
    if origin is None or origin.manifest_digest is None:
        return ()
    try:
        manifest, _ = read_documents(system.repository, origin.manifest_digest)
    except (Error, OSError) as exc:
        _log.warning("the deployed image cannot be compared with: %s", one_line(exc))
        return ()
    return manifest.layers
