"""The requests for installations, and their result."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass

from bootc.errors import Error
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType

#: The transport of a target that is given without one.
DEFAULT_TRANSPORT = "registry"


#: Stands for any unified kernel image among paths to find in an image.
ANY_UKI = "boot/EFI/Linux/*.efi"


class InstallRefused(Error):
    """The request cannot be met. Nothing was written; the disk is unchanged."""


class BoundImages(enum.StrEnum):
    """What an installation does with bound images: copy them, pull them, or neither."""

    STORED = "stored"
    PULL = "pull"
    SKIP = "skip"


class Replace(enum.StrEnum):
    """What happens to the content of an existing file system.

    ``WIPE`` removes all of it. ``ALONGSIDE`` keeps it, except the content of the boot partitions:
    the old system does not boot any more, but its files remain.
    """

    WIPE = "wipe"
    ALONGSIDE = "alongside"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallRequest:
    """The part of a request that all installations have.

    Attributes:
        source: The image to install.
        source_name: Its name, or None if it has no name.
        target: The image from which the installed machine updates.
        bootloader: A name, or None to leave the choice to the configuration.
        found_loader: The loader that the image has, and why it was chosen; used if neither the
            user nor the configuration names one.
        found_files: The files of boot loaders that were found in the image.
        kargs: Kernel arguments to add.
        karg_deletes: Kernel arguments of the configuration and of the image to leave out.
        allow_missing_verity: Tolerate objects without fs-verity, now and at each boot.
        generic_image: The disk will boot on other machines: do not change this machine's
            firmware variables.
        uki_addons: The add-ons of the image's unified kernel image to install, without suffix.
        boot_type: The way to boot; ``BLS`` takes a unified kernel image apart. None boots what the
            image has.
        disable_sealing: Take a unified kernel image apart even if it demands fs-verity.
        from_container: The source is the image of this container, in the storage of the host.
        root_keys_file: A file with the public SSH keys of root, or None.
        stateroot: The name of the directory for ``/var``, or None for the configured one.
        enforce_sigpolicy: Demand signatures, whatever the configuration says.
        fetch_check: Make sure that the target can be fetched.
        disable_selinux: Turn SELinux off on the installed machine.
        bootupd_skip_boot_uuid: Have bootupd not write the UUID of the file system with ``boot``,
            whatever the configuration says.
        bound_images: What happens to the bound images of the image: ``stored``, ``pull`` or
            ``skip``; None if the user does not say.
        dry_run: Check everything, print the plan, and change nothing.
    """

    source: ImageReference
    target: ImageReference
    source_name: str | None = None
    bootloader: str | None = None
    found_loader: tuple[str, str] | None = None
    found_files: Collection[str] = frozenset()
    kargs: tuple[str, ...] = ()
    karg_deletes: tuple[str, ...] = ()
    allow_missing_verity: bool = False
    generic_image: bool = False
    uki_addons: tuple[str, ...] = ()
    boot_type: BootType | None = None
    disable_sealing: bool = False
    from_container: bool = False
    root_keys_file: str | None = None
    stateroot: str | None = None
    enforce_sigpolicy: bool = False
    fetch_check: bool = False
    disable_selinux: bool = False
    bootupd_skip_boot_uuid: bool = False
    bound_images: BoundImages | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRequest(InstallRequest):
    """One ``bootc install to-disk``.

    Attributes:
        device: Path of a whole disk, or of a file that becomes the image of a disk.
        via_loopback: The path is that of a file.
        block_setup: A name, or None to leave the choice to the configuration.
        filesystem: Type of the root file system, or None to leave it to the configuration.
        root_size_mib: Size of the root partition, or None for the rest of the disk.
        wipe: Overwrite the data on the disk.
    """

    device: str
    via_loopback: bool = False
    block_setup: str | None = None
    filesystem: str | None = None
    root_size_mib: int | None = None
    wipe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesystemRequest(InstallRequest):
    """One ``bootc install to-filesystem`` or ``to-existing-root``.

    Attributes:
        root: The mount point of the root file system.
        replace: What to do with its content; None refuses content.
        root_mount_spec: The value of ``root=``; empty for no such argument, None to choose it.
        boot_mount_spec: The source of ``/boot``; empty for no such mount, None to choose it.
        existing_root: The root is that of the running system: reuse its arguments of the kernel.
        acknowledge_destructive: Do not wait before the root of the running system is changed.
        skip_finalize: Leave the file systems writable.
        cleanup: Have the installed system remove the previous one, where that is kept.
    """

    root: str
    replace: Replace | None = None
    root_mount_spec: str | None = None
    boot_mount_spec: str | None = None
    existing_root: bool = False
    acknowledge_destructive: bool = False
    skip_finalize: bool = False
    cleanup: bool = False


@dataclass(frozen=True, slots=True)
class Installed:
    """The result of an installation."""

    image_id: Digest
    manifest_digest: OciDigest
    bootloader: str


def target_reference(
    source: ImageReference, imgref: str | None, transport: str | None
) -> ImageReference:
    """Return the image reference for updates: the given parts, completed from the source.

    A source that is no registry is only used as a whole, since another transport cannot use
    its name.

    Raises:
        ImageReferenceError: the parts do not form a reference.
    """
    if imgref is None and transport is None:
        return source
    return ImageReference.of(
        DEFAULT_TRANSPORT if transport is None else transport,
        source.name if imgref is None else imgref,
    )
