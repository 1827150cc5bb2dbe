"""Preparing the deployment of a new image: pulling it, and checking that it can boot here.

Nothing here changes a deployment. These functions find out whether the image can boot on this
machine, and whether the boot partition has space for it, before anything is changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bootc.boot.artifacts import Artifact, list_artifacts
from bootc.boot.image_kernel import UkiFile, find_boot_resource
from bootc.boot.kernel_release import check_image_kernel
from bootc.boot.kernels import (
    BootResource,
    boot_digest_of,
    find_shared_kernel,
    more_files,
)
from bootc.boot.loader import Bootloader
from bootc.boot.menu_compose import CannotCompose, NewItem, new_item, upgraded_options
from bootc.boot.menu_read import Item
from bootc.boot.scheme import BootDirs
from bootc.boot.systemd_boot import installed_version
from bootc.boot.uki import inspect_uki
from bootc.boot.uki_parts import CannotTakeApart
from bootc.deploy.bootable import (
    check_space,
    description_of,
    kargs_d_of,
    kargs_d_of_deployed,
    note_label,
    os_release_of,
)
from bootc.deploy.etc.local import with_policy
from bootc.deploy.etc.merge import ConflictPolicy
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.host.session import HostAccess
from bootc.deploy.installed_addons import carried_addons, warn_of_lost_addons
from bootc.deploy.lost_entries import find_lost_kernel
from bootc.deploy.plan.room import room_for_update
from bootc.deploy.plan.stage import NewDeployment, kept_items
from bootc.deploy.sealing import check_uki, require_verity, take_uki_apart
from bootc.events import Sink
from bootc.formats import bls, cmdline
from bootc.formats.digest import Digest
from bootc.formats.origin import BootRecord, BootType, Origin, UkiRecord, Waiver
from bootc.formats.osrelease import OsRelease
from bootc.formats.security_version import SecurityVersion, is_statement
from bootc.formats.tree import Directory
from bootc.oci.pull import Pulled, pull
from bootc.oci.source import Source


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pulled image.

    Attributes:
        image_id: The id of its deployment.
        origin: The origin to record.
        resource: Its kernel or unified kernel image, or the parts of one.
        os_release: Its os-release.
        asked: The kernel arguments that it asks for.
        missing_verity_allowed: Whether it tolerates missing fs-verity.
        version: The security version that its unified kernel image states, if it has one.
    """

    image_id: Digest
    origin: Origin
    resource: BootResource
    os_release: OsRelease
    asked: tuple[str, ...]
    missing_verity_allowed: bool
    version: SecurityVersion | None = None


def pull_candidate(
    system: HostAccess, facts: Facts, wanted: ImageSpec, source: Source, sink: Sink
) -> Candidate:
    """Pull an image and find out what it needs.

    Raises:
        InsufficientSpace: it does not fit.
        ImageNotBootable, KernelTooOld, WrongUki: it cannot be booted.
        CannotTakeApart: its unified kernel image cannot boot in parts.
        Error, OSError: the pull failed.
    """
    repository = system.repository
    note_label(source, sink)
    check_space(repository, source)
    pulled = pull(repository, source, sink)
    resource = find_boot_resource(pulled.root)
    check_image_kernel(resource, pulled.root, repository.objects)
    running = facts.origin(facts.booted.image_id)
    candidate = Candidate(
        image_id=pulled.image_id,
        origin=Origin(
            image=wanted.reference,
            boot_type=BootType.BLS,
            manifest_digest=pulled.manifest_digest,
            signature=wanted.signature,
            # Deployments pass on how the machine was installed.
            record=BootRecord() if running is None else running.record,
            uki=None if running is None else running.uki,
            waived=_waived_by_installation(facts, running),
        ),
        resource=resource,
        os_release=os_release_of(repository, pulled.root),
        asked=kargs_d_of(repository, pulled.root),
        missing_verity_allowed=facts.booted.missing_verity_allowed,
    )
    if isinstance(resource, UkiFile):
        return _uki_candidate(system, facts, candidate, pulled, resource)
    warn_of_lost_addons(system, facts)
    boot_digest = boot_digest_of(resource, repository.objects)
    return _with_origin(candidate, boot_digest=boot_digest, uki=_uki_record(candidate, None))


def _uki_candidate(
    system: HostAccess, facts: Facts, candidate: Candidate, pulled: Pulled, uki: UkiFile
) -> Candidate:
    """Complete what is known of an image with a unified kernel image."""
    repository, record = system.repository, candidate.origin.uki
    # The add-ons that were chosen at the installation stay chosen, and the administrator's stay.
    carried = None
    if record is None:
        carried = carried_addons(system, facts, uki)
        uki = carried.uki
    else:
        uki = uki.with_addons(record.addons, for_all=record.addons)
    found = inspect_uki(uki, repository.objects)
    if carried is not None:
        uki = carried.with_own(repository.objects, sealed=found.sealed)
    checked = check_uki(repository, pulled, uki, found)
    candidate = dataclasses.replace(
        candidate,
        image_id=checked.pulled.image_id,
        resource=uki,
        os_release=found.os_release,
        version=found.version,
    )
    if record is None:
        require_verity(repository, checked)
        candidate = dataclasses.replace(candidate, missing_verity_allowed=not checked.sealed)
        return _with_origin(
            candidate,
            boot_type=system.boot.scheme.uki_type,
            boot_digest=found.boot_digest,
            waived=() if checked.sealed else candidate.origin.waived,
        )
    try:
        parts = take_uki_apart(repository, checked, record.takes_apart)
    except CannotTakeApart as exc:
        # The hint is for an installation. This machine was installed to boot no UKI whole.
        exc.hint = f"{exc.remedy}; or update to another image: bootc switch IMAGE"
        raise
    return _with_origin(
        dataclasses.replace(candidate, resource=parts, asked=parts.arguments),
        boot_digest=boot_digest_of(parts, repository.objects),
        uki=_uki_record(candidate, cmdline.join(parts.arguments)),
    )


def _uki_record(candidate: Candidate, arguments: str | None) -> UkiRecord | None:
    record = candidate.origin.uki
    return None if record is None else dataclasses.replace(record, arguments=arguments)


def _with_origin(candidate: Candidate, **changes: Any) -> Candidate:
    origin = dataclasses.replace(candidate.origin, **changes)
    return dataclasses.replace(candidate, origin=origin)


def _waived_by_installation(facts: Facts, running: Origin | None) -> tuple[str, ...]:
    """Return what a new deployment tolerates because the installation does."""
    waiver = Waiver.MISSING_VERITY.value
    if running is None or not facts.booted.missing_verity_allowed:
        return ()
    return (waiver,) if waiver in running.waived else ()


def new_deployment(
    system: HostAccess, facts: Facts, candidate: Candidate, policy: ConflictPolicy
) -> NewDeployment:
    """Prepare the deployment of an image: its menu entry, and the space for its kernel.

    Raises:
        NoSpaceOnBoot: there is not enough space.
        CannotCompose: the menu of this system cannot have such an entry.
        Error, OSError: the running system's image or the boot partition cannot be read.
    """
    dirs = _dirs_for(system, candidate)
    shared = _shared_kernel(dirs, facts, candidate)
    options = None
    if not isinstance(candidate.resource, UkiFile):
        options = _options_of(system, facts, candidate.image_id, candidate.asked)
    item = new_item(
        dirs.scheme,
        candidate.image_id,
        candidate.os_release,
        options=options,
        artifact=shared,
        files=candidate.resource.sizes,
        systemd_version=_systemd_version(dirs),
    )
    beside = tuple(_lost_entries(system, facts))
    sizes = None if shared else candidate.resource.sizes
    order: list[NewItem | Item] = [item, *beside, *kept_items(facts)]
    return NewDeployment(
        item=item,
        origin=with_policy(candidate.origin, policy),
        kernel_size_bytes=None if sizes is None else sum(sizes.values()),
        evict=room_for_update(dirs, facts, sizes, order, shared=shared),
        beside=beside,
    )


def _lost_entries(system: HostAccess, facts: Facts) -> Iterator[NewItem]:
    """Yield new entries for the booted and the pinned deployments that lost theirs."""
    running = facts.booted.image_id
    shown = {item.deployment for item in kept_items(facts)}
    pinned = (i for i in facts.states if i != running and facts.is_pinned(i))
    lost = [deployment for deployment in (running, *pinned) if deployment not in shown]
    kernels = list_artifacts(system.boot) if lost else ()
    for deployment in lost:
        yield from _entry_anew(system, facts, deployment, kernels)


def _entry_anew(
    system: HostAccess, facts: Facts, deployment: Digest, artifacts: Sequence[Artifact]
) -> Iterator[NewItem]:
    """Yield an entry for a deployment that lost its own, if it can still be booted."""
    origin = facts.origin(deployment)
    kernel = find_lost_kernel(system.boot, facts, deployment, artifacts)
    if origin is None or kernel is None:
        return
    root = description_of(system.repository, facts.images_of(deployment))
    options = None
    if origin.boot_type is BootType.BLS:
        options = _booted_options(facts)
        if options is None:
            return
        if deployment != facts.booted.image_id:
            # What somebody had added to the lost one is not known.
            asked = _asked(system, facts, deployment, root)
            options = _options_of(system, facts, deployment, asked)
    scheme = dataclasses.replace(system.boot.scheme, boot_type=origin.boot_type)
    yield new_item(
        scheme,
        deployment,
        os_release_of(system.repository, root),
        options=options,
        artifact=kernel,
        files=more_files(system.boot, kernel) if options is not None else (),
        systemd_version=_systemd_version(dataclasses.replace(system.boot, scheme=scheme)),
    )


def _dirs_for(system: HostAccess, candidate: Candidate) -> BootDirs:
    """Return the boot directories for an image of this boot type, which may be new here.

    Raises:
        CannotCompose: GRUB keeps images of the two types in menus that exclude each other, or
            nothing on this machine can start the image.
    """
    dirs, boot_type = system.boot, candidate.origin.boot_type
    if dirs.scheme.only_unified and not boot_type.is_unified:
        starter = "boot loader" if dirs.scheme.in_slots else "firmware"
        raise CannotCompose(
            f"the {starter} of this machine starts only unified kernel images, "
            "and the image has none",
            hint="use an image with a unified kernel image, or install with another boot loader: "
            "bootc install",
        )
    if dirs.scheme.boot_type is boot_type:
        return dirs
    if not dirs.scheme.menu_on_esp:
        raise CannotCompose(
            f"this system boots by {dirs.scheme.boot_type.value} entries of GRUB, "
            f"and the image by {boot_type.value}",
            hint="install the image instead: bootc install to-disk --boot-type bls"
            if boot_type is BootType.UKI
            else "install the image instead: bootc install",
        )
    return dataclasses.replace(dirs, scheme=dataclasses.replace(dirs.scheme, boot_type=boot_type))


def _shared_kernel(dirs: BootDirs, facts: Facts, candidate: Candidate) -> str | None:
    """Return the name of an equal kernel of a deployment that is kept."""
    digest = candidate.origin.boot_digest
    if digest is None or isinstance(candidate.resource, UkiFile):
        return None
    kept = {facts.booted.image_id, *(item.deployment for item in kept_items(facts))}
    names = [item.artifact for item in facts.active.items if item.deployment in kept]
    return find_shared_kernel(dirs, digest, [name for name in names if name])


def _options_of(system: HostAccess, facts: Facts, deployment: Digest, asked: Sequence[str]) -> str:
    """Return the kernel arguments for an image that asks for these."""
    running = facts.booted.image_id
    root = description_of(system.repository, facts.images_of(running))
    return upgraded_options(
        _booted_options(facts),
        deployment,
        _asked(system, facts, running, root),
        asked,
        optional=facts.booted.missing_verity_allowed,
    )


def _asked(system: HostAccess, facts: Facts, deployment: Digest, root: Directory) -> Sequence[str]:
    """Return the kernel arguments that the image of an existing deployment asked for."""
    origin = facts.origin(deployment)
    if origin is not None and origin.uki is not None and origin.uki.arguments is not None:
        return cmdline.parse(origin.uki.arguments)
    return kargs_d_of_deployed(system.repository, root)


def _booted_options(facts: Facts) -> str | None:
    """Return the arguments of the booted entry, or those of the running kernel if it is lost."""
    item = facts.active_item(facts.booted.image_id)
    if item is not None and isinstance(item.entry, bls.Entry) and item.entry.options:
        return item.entry.options
    given = cmdline.parse(facts.booted.cmdline)
    # Boot loaders add these; the next entry names its own.
    added = ("initrd=", "BOOT_IMAGE=")
    kept = (arg for arg in given if not arg.startswith(added))
    # The security version of a unified kernel image is that of no other image.
    return cmdline.join(arg for arg in kept if not is_statement(arg)) or None


def _systemd_version(dirs: BootDirs) -> int:
    scheme = dirs.scheme
    if scheme.bootloader is not Bootloader.SYSTEMD or scheme.boot_type is BootType.BLS:
        return 0
    return installed_version(dirs.esp)
