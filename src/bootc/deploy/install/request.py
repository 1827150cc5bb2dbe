"""What an installation is asked to do, and what it reports to have done."""

from __future__ import annotations

from dataclasses import dataclass

from bootc.errors import Error
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference

#: The transport of a target that is given without one.
DEFAULT_TRANSPORT = "registry"


class InstallRefused(Error):
    """The installation cannot be done as asked. Nothing has been written: the disk is as it was."""


@dataclass(frozen=True, slots=True)
class InstallRequest:
    """One ``bootc install to-disk``.

    Attributes:
        device: Path of a whole disk.
        source: Where the image comes from now.
        target: Where the installed machine looks for updates.
        bootloader: A name, or None to leave the choice to the configuration.
        block_setup: A name, or None to leave the choice to the configuration.
        filesystem: Type of the root file system, or None to leave it to the configuration.
        root_size_mib: Size of the root partition, or None for all there is.
        wipe: Overwrite what the disk holds.
        kargs: Kernel arguments to add.
        allow_missing_verity: Tolerate objects without fs-verity, now and at each boot.
        generic_image: The disk will boot on other machines: leave this one's firmware alone.
        uki_addons: Add-ons of the image's unified kernel image to install, less their suffix.
    """

    device: str
    source: ImageReference
    target: ImageReference
    bootloader: str | None = None
    block_setup: str | None = None
    filesystem: str | None = None
    root_size_mib: int | None = None
    wipe: bool = False
    kargs: tuple[str, ...] = ()
    allow_missing_verity: bool = False
    generic_image: bool = False
    uki_addons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Installed:
    """What is on the disk now."""

    image_id: Digest
    manifest_digest: OciDigest
    device: str
    bootloader: str


def target_reference(
    source: ImageReference, imgref: str | None, transport: str | None
) -> ImageReference:
    """Return where updates will come from: as given, with the source filling the gaps.

    A source that is no registry is only taken over whole, since its name means
    nothing to another transport.

    Raises:
        ImageReferenceError: the parts make no reference.
    """
    if imgref is None and transport is None:
        return source
    return ImageReference.of(
        DEFAULT_TRANSPORT if transport is None else transport,
        source.name if imgref is None else imgref,
    )
