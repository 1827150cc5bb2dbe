"""The host from the facts: which deployments there are and what part each plays.

:func:`read_host` reads and :func:`compose_host` decides; it is pure, and has an answer for
any facts, since this is what people turn to when something is damaged. A deployment is one
that a boot entry starts and whose origin is known; the booted one needs neither. It is

- *booted* if it runs, or else
- *staged* if it is announced for the next boot and has an entry in either menu, or else
- the *rollback* if it is the first of the others in the menu, or else one of the rest.

Where upstream's status is known to be wrong, this one follows the intention. A rollback is
queued exactly when the first deployment of the menu is neither the booted one nor the one
that is staged, on every boot loader. Whether missing fs-verity is tolerated is told by each
entry's own ``composefs=`` argument, or that in its unified kernel image; where it cannot be
read it counts as the booted one's. One bad entry does not hide the others, and
looking changes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.menu_read import Item
from bootc.deploy.host.boot_state import read_booted_state
from bootc.deploy.host.facts import Facts, ImageFacts
from bootc.deploy.host.gather import gather, image_status
from bootc.deploy.host.model import (
    BootEntry,
    ComposefsStatus,
    Host,
    HostSpec,
    HostStatus,
    ImageSpec,
    ImageStatus,
    RollbackWindow,
    VersionStatus,
)
from bootc.deploy.host.notes import FinalizeFailure
from bootc.deploy.host.trust_chain import compose_chain
from bootc.deploy.host.view import open_partial_view
from bootc.deploy.protection import (
    counter_refuses,
    missing_verity_allowed,
    protection_of,
    staged_losses,
    window_losses,
)
from bootc.formats import bls, cmdline
from bootc.formats.digest import Digest

#: In place of the architecture of an image whose documents cannot be read.
_UNKNOWN = ImageFacts("unknown")


def read_host(*, root: str = "/") -> Host:
    """Return the host that runs with its root at ``root``; empty if not booted by composefs.

    Raises:
        Error: the system contradicts itself, or has no repository.
        OSError: something that must be there cannot be read.
    """
    booted = read_booted_state(root=root)
    if booted is None:
        return Host.empty()
    with open_partial_view(booted, root=root) as sysroot:
        facts = gather(sysroot)
    return compose_host(
        dataclasses.replace(
            facts,
            read_only=sysroot.read_only,
            findings=(*sysroot.findings, *facts.findings),
        )
    )


def compose_host(facts: Facts) -> Host:
    """Decide which deployment plays which part. There is nothing this raises for."""
    booted, staged = facts.booted.image_id, facts.staged_id()
    booted_entry = dataclasses.replace(
        _describe(facts, booted), cached_update=_cached_update(facts)
    )
    staged_entry = None
    if staged is not None:
        marker = facts.booted.staged
        locked = marker is not None and marker.locked
        staged_entry = dataclasses.replace(_describe(facts, staged), download_only=locked)
    others = [
        _describe(facts, deployment)
        for deployment in dict.fromkeys(facts.bootable())
        if deployment not in (booted, staged)
    ]
    rollback_queued = _is_rollback_queued(facts)
    return Host(
        HostSpec(
            image=wanted_image(facts),
            boot_order="rollback" if rollback_queued else "default",
        ),
        HostStatus(
            staged=staged_entry,
            booted=booted_entry,
            rollback=others[0] if others else None,
            other_deployments=tuple(others[1:]),
            rollback_queued=rollback_queued,
            usr_overlay=facts.booted.usr_overlay,
            read_only=facts.read_only,
            is_bootc=True,
            protection=compose_chain(facts),
            window=_window(facts),
            findings=(
                *facts.findings,
                *facts.mirrors,
                *_lost_entries(facts),
                *_failures(facts),
                *_interrupted(facts),
                *_weaker(facts),
                *_left_behind(facts),
            ),
        ),
    )


def wanted_image(facts: Facts) -> ImageSpec | None:
    """Return the image that updates are looked for under: the staged, else the booted one's."""
    for deployment in (facts.staged_id(), facts.booted.image_id):
        origin = None if deployment is None else facts.origin(deployment)
        if origin is not None and origin.image is not None:
            return ImageSpec(origin.image, origin.signature)
    return None


def _is_rollback_queued(facts: Facts) -> bool:
    running_or_next = (facts.booted.image_id, facts.staged_id())
    for item in facts.active.items:
        if item.deployment in running_or_next:
            return False
        if facts.origin(item.deployment) is not None:
            return True
    return False


def _describe(facts: Facts, deployment: Digest) -> BootEntry:
    origin = facts.origin(deployment)
    item = _item(facts, deployment)
    return BootEntry(
        composefs=ComposefsStatus(
            verity=deployment,
            boot_type=facts.scheme.boot_type if origin is None else origin.boot_type,
            bootloader=facts.scheme.bootloader,
            boot_digest=None if origin is None else origin.boot_digest,
            missing_verity_allowed=_tolerates_missing_verity(facts, deployment),
        ),
        image=_image(facts, deployment),
        pinned=facts.is_pinned(deployment),
        soft_reboot_capable=_is_soft_reboot_capable(facts, deployment, item),
        in_parts=origin is not None and origin.uki is not None and origin.uki.arguments is not None,
        waived=() if origin is None else origin.waivers,
        version=_version(facts, deployment),
    )


def _version(facts: Facts, deployment: Digest) -> VersionStatus | None:
    stated, then = facts.version(deployment), protection_of(facts, deployment)
    if stated is None:
        return None
    status = VersionStatus(stated)
    if then is not None and facts.booted_sealed():
        below = deployment != facts.booted.image_id and bool(window_losses(facts, deployment))
        status = VersionStatus(stated, below, counter_refuses(facts, then))
    return status if stated.stated or status.below_minimum or status.refused else None


def _window(facts: Facts) -> RollbackWindow | None:
    booted = facts.version(facts.booted.image_id)
    if booted is None or not facts.booted_sealed():
        return None
    if not booted.minimum and facts.counter is None:
        return None
    return RollbackWindow(booted.minimum, facts.counter)


def _item(facts: Facts, deployment: Digest) -> Item | None:
    # What is staged boots by the entry that will be, should it have two.
    menus = [facts.active_item, facts.staged_item]
    if deployment == facts.staged_id():
        menus.reverse()
    return menus[0](deployment) or menus[1](deployment)


def _image(facts: Facts, deployment: Digest) -> ImageStatus | None:
    state = facts.states.get(deployment)
    if state is None or state.origin is None or state.origin.image is None:
        return None
    digest = state.origin.manifest_digest
    if digest is None:
        return state.legacy_image
    spec = ImageSpec(state.origin.image, state.origin.signature)
    return image_status(spec, digest, facts.images.get(digest, _UNKNOWN))


def _cached_update(facts: Facts) -> ImageStatus | None:
    found, running = facts.cached_update, _image(facts, facts.booted.image_id)
    if found is None or (running is not None and running.digest == found.digest):
        return None
    # Another image than the one updates come from was looked at before a switch.
    return found if found.image == wanted_image(facts) else None


def _tolerates_missing_verity(facts: Facts, deployment: Digest) -> bool:
    own = None
    if deployment != facts.booted.image_id:
        own = missing_verity_allowed(facts, deployment)
    return facts.booted.missing_verity_allowed if own is None else own


def _is_soft_reboot_capable(facts: Facts, deployment: Digest, item: Item | None) -> bool:
    """Tell whether the running kernel, as it was started, is the deployment's own.

    With SELinux the policy would have to be the same as well, which facts do not tell.
    """
    booted = facts.booted.image_id
    if deployment == booted or facts.booted.selinux:
        return False
    mine, running = facts.origin(deployment), facts.origin(booted)
    if mine is None or running is None or mine.boot_digest is None:
        return False
    if mine.boot_digest != running.boot_digest:
        return False
    wanted, present = _parameters(item), _parameters(_item(facts, booted))
    return wanted is not None and wanted == present


def _parameters(item: Item | None) -> list[str] | None:
    """Return what an entry tells the kernel but for the image, in no particular order."""
    options = None if item is None else _options(item)
    if options is None:
        return None
    return sorted(p for p in cmdline.parse(options) if not cmdline.names_image(p))


def _options(item: Item) -> str | None:
    """Return an entry's kernel command line; that of a unified kernel image is inside of it."""
    if isinstance(item.entry, bls.Entry) and item.entry.linux is not None:
        return item.entry.options or ""
    return None


def _lost_entries(facts: Facts) -> Iterator[Finding]:
    """Yield what could not be booted again. Without any menu, that is the finding."""
    if not facts.active.items:
        return
    pinned = [i for i in facts.states if facts.is_pinned(i) and i != facts.booted.image_id]
    lost = {facts.booted.image_id: "the booted deployment"}
    lost |= {deployment: f"the pinned deployment {deployment}" for deployment in pinned}
    for deployment, name in lost.items():
        if facts.active_item(deployment) is None:
            text = f"no entry starts {name}; the next update makes one if its kernel is there"
            yield Finding(FindingKind.MALFORMED, facts.scheme.entries, text)


def _failures(facts: Facts) -> Iterator[Finding]:
    for deployment, state in facts.states.items():
        # One that boots, or will, got over it: upstream's program finalizes and leaves the note.
        past = (facts.booted.image_id, facts.staged_id())
        if (
            state.failure is not None
            and deployment not in past
            and facts.active_item(deployment) is None
        ):
            text = _failure_text(state.failure)
            yield Finding(FindingKind.FAILED, f"deployment {deployment}", text)


def _interrupted(facts: Facts) -> Iterator[Finding]:
    deployment = facts.unannounced_id()
    if deployment is not None:
        text = (
            "it is prepared, and does not boot next: the machine went down before it was "
            "finalized, or preparing it was interrupted "
            "(bootc upgrade stages it again, bootc upgrade --cancel drops it)"
        )
        yield Finding(FindingKind.FAILED, f"deployment {deployment}", text)


def _weaker(facts: Facts) -> Iterator[Finding]:
    for loss in staged_losses(facts):
        text = f"it protects less than the booted deployment: {loss}"
        yield Finding(FindingKind.WEAKER, f"deployment {facts.staged_id()}", text)


def _left_behind(facts: Facts) -> Iterator[Finding]:
    """Yield what could not be removed."""
    for failure in facts.cleanup_failures:
        since = "" if failure.time is None else f", the first time at {failure.time}"
        again = "bootc internals composefs-gc"
        if failure.in_repository:
            again = "bootc internals composefs-gc --prune-repo"
        text = f"{failure.reason} ({again} tries again{since})"
        yield Finding(FindingKind.LEFTOVER, "clean-up", text)


def _failure_text(failure: FinalizeFailure) -> str:
    when = "when the machine went down" if failure.time is None else f"at {failure.time}"
    return (
        f"it did not become the default {when}: {failure.reason} "
        "(bootc upgrade stages it again, bootc upgrade --cancel drops it)"
    )
