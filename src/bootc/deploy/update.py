"""``upgrade`` and ``switch``: another image for the next boot.

Whatever state the system is in, the outcome depends on the image that is wanted alone:

* the image is already staged, or already booted with nothing staged: nothing changes, and a
  message says so;
* its tree is that of the booted or the staged deployment: what is recorded of that one is
  brought up to date. Whatever else is staged goes; a rollback that is queued stays queued;
* its tree is that of another deployment in the menu: that one boots next;
* else it is staged in the place of whatever was staged.

The image is pulled and checked, its ``/etc`` merged on trial and the room for its kernel
counted before anything of what is staged is touched.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from bootc.deploy.cleanup import collect_afterwards
from bootc.deploy.etc.apply import image_etc
from bootc.deploy.etc.local import read_local_etc, with_policy
from bootc.deploy.etc.merge import ConflictPolicy
from bootc.deploy.execute import Supplies, run
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.gather import gather, read_documents, read_image
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.host.session import ReadableSystem
from bootc.deploy.host.status import wanted_image
from bootc.deploy.plan.finalize import EtcConflict, require_resolved
from bootc.deploy.plan.reorder import plan_front, plan_pin
from bootc.deploy.plan.room import with_room
from bootc.deploy.plan.stage import (
    droppable,
    nothing_staged,
    plan_announce,
    plan_cancel,
    plan_record,
    plan_stage,
)
from bootc.deploy.plan.steps import Plan, RecordOrigin
from bootc.deploy.prepare import Candidate, new_deployment, pull_candidate
from bootc.deploy.protection import Protection, booted_protection, losses, staged_losses
from bootc.deploy.records import write_cached_update
from bootc.errors import Error, one_line
from bootc.events import Message, Sink
from bootc.formats.digest import Digest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import Descriptor, Manifest
from bootc.formats.origin import BootType, Origin
from bootc.oci import sigpolicy
from bootc.oci.source import Source, open_source
from bootc.sizes import glib_size

_log = logging.getLogger(__name__)

_WEAKER = "notice: the new image protects less than the booted one"
_PERHAPS_WEAKER = (
    "notice: what runs boots a unified kernel image; whether the new image brings one, and demands "
    "fs-verity as much, is known once it is pulled (bootc upgrade --dry-run says it)"
)


class NoImageSource(Error):
    """It is not known where to look for updates."""


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """How an update is to be done.

    Attributes:
        apply: The caller reboots into it.
        download_only: Stage it, and boot it only when that is asked for later.
        dry_run: Say what would be done, and do nothing but pull.
        etc_conflict: What becomes of local changes in ``/etc`` that exclude the image's.
    """

    apply: bool = False
    download_only: bool = False
    dry_run: bool = False
    etc_conflict: ConflictPolicy = ConflictPolicy.FAIL


def upgrade(
    system: ReadableSystem, options: UpdateOptions, sink: Sink, *, tag: str | None = None
) -> bool:
    """Get the newest image from where this system's came from.

    Args:
        system: The system.
        options: How.
        sink: Told of progress and outcome.
        tag: Of the image, in place of the one it has.

    Returns:
        Whether another deployment than the booted one boots next.

    Raises:
        NoImageSource: there is no such place on record.
        EtcConflict: local changes exclude the image's. Nothing has been touched.
        NoSpaceOnBoot: there is no room for its kernel. Nothing has been touched.
        Error, OSError: as pulling and writing raise.
    """
    facts = gather(system)
    return _update(system, facts, _source_of(facts, tag), options, sink)


def switch(
    system: ReadableSystem,
    target: ImageSpec,
    options: UpdateOptions,
    sink: Sink,
    *,
    retain: bool = False,
) -> bool:
    """Get another image, and look there for updates from then on.

    Args:
        system: The system.
        target: The image.
        options: How.
        sink: Told of progress and outcome.
        retain: Pin the booted deployment.

    Returns:
        Whether another deployment than the booted one boots next.

    Raises:
        Error, OSError: as :func:`upgrade`.
    """
    sigpolicy.require_enforceable(target.reference, target.signature)
    if target.signature is not None:
        sink(Message(sigpolicy.notice()))
    facts = gather(system)
    if wanted_image(facts) == target:
        sink(Message("Image specification is unchanged."))
        boots_next = facts.staged_id() is not None
        if boots_next and options.apply:
            run(plan_announce(facts, locked=False), system, sink, dry_run=options.dry_run)
    else:
        boots_next = _update(system, facts, target, options, sink)
    if retain:
        # Only now: what could not be switched from needs no keeping.
        pin = plan_pin(gather(system), facts.booted.image_id, pinned=True)
        run(pin, system, sink, dry_run=options.dry_run)
    return boots_next


def check_for_update(system: ReadableSystem, sink: Sink, *, tag: str | None = None) -> None:
    """Say whether there is a newer image; no disk is changed.

    What was found is noted in memory for the status, where the system has been opened with a
    place for that.

    Raises:
        NoImageSource: it is not on record where to look.
        Error: the image cannot be read there.
    """
    facts = gather(system)
    wanted = _source_of(facts, tag)
    with open_source(wanted.reference, wanted.signature) as source:
        found = read_image(wanted, source)
        if system.run is not None:
            write_cached_update(system.run, found)
        compared = facts.staged_id() or facts.booted.image_id
        origin = facts.origin(compared)
        if _is_image(facts, compared, wanted, source):
            sink(Message(_unchanged(facts, wanted)))
            for loss in staged_losses(facts):
                sink(Message(f"{_WEAKER}: {loss}"))
            return
        sink(Message(f"Update available for: {_name(wanted.reference)}"))
        sink(Message(f"  Digest: {found.digest}"))
        if found.version is not None:
            sink(Message(f"  Version: {found.version}"))
        known = _layers_of(system, origin)
        for line in _difference(known, Manifest.parse(source.manifest_raw).layers):
            sink(Message(line))
    if booted_protection(facts).unified:
        # The documents of an image do not tell what it boots with.
        sink(Message(_PERHAPS_WEAKER))


def cancel(system: ReadableSystem, sink: Sink, *, dry_run: bool = False) -> None:
    """Drop what is staged, or what is left of an update that was not finalized.

    Raises:
        NothingStaged: there is nothing of either.
    """
    facts = gather(system)
    run(plan_cancel(facts), system, sink, dry_run=dry_run)
    if not dry_run:
        sink(Message("The staged deployment is dropped."))
        collect_afterwards(system, sink)


def release(system: ReadableSystem, options: UpdateOptions, sink: Sink) -> bool:
    """Let a deployment that was only downloaded boot next.

    Returns:
        Whether another deployment than the booted one boots next: always.

    Raises:
        NothingStaged: nothing was downloaded.
    """
    facts = gather(system)
    if facts.staged_id() is None or facts.booted.staged is None:
        raise nothing_staged()
    if not facts.booted.staged.locked:
        sink(Message("Staged deployment is present and not in download only mode."))
        if not options.apply:
            sink(Message("Use `bootc update --apply` to apply the update."))
    run(plan_announce(facts, locked=False), system, sink, dry_run=options.dry_run)
    return True


def _update(
    system: ReadableSystem, facts: Facts, wanted: ImageSpec, options: UpdateOptions, sink: Sink
) -> bool:
    with open_source(wanted.reference, wanted.signature) as source:
        staged = facts.staged_id()
        if staged is not None and _is_image(facts, staged, wanted, source):
            return _already_staged(system, facts, wanted, options, sink)
        if staged is None and _is_image(facts, facts.booted.image_id, wanted, source):
            if droppable(facts):
                # An update that was not finalized, and is not offered any more.
                run(plan_cancel(facts), system, sink, dry_run=options.dry_run)
                if not options.dry_run:
                    collect_afterwards(system, sink)
            sink(Message(_unchanged(facts, wanted)))
            return False
        candidate = pull_candidate(system, facts, wanted, source, sink)
    return _deploy(system, facts, candidate, options, sink)


def _deploy(
    system: ReadableSystem, facts: Facts, candidate: Candidate, options: UpdateOptions, sink: Sink
) -> bool:
    image_id, origin = candidate.image_id, candidate.origin
    unified = origin.boot_type is BootType.UKI
    for loss in losses(facts, Protection(unified, strict=not candidate.missing_verity_allowed)):
        sink(Message(f"{_WEAKER}: {loss}"))
    supplies = None
    if image_id in (facts.booted.image_id, facts.staged_id()):
        plan = plan_record(facts, image_id, origin, locked=options.download_only)
        if image_id == facts.staged_id():
            plan = _choosing(facts, plan, options)
    elif image_id in facts.bootable():
        plan = plan_front(facts, image_id, origin, locked=options.download_only)
        plan = with_room(system, facts, plan)
    else:
        etc = image_etc(system.repository.objects, image_id)
        with read_local_etc(system) as local:
            merge = local.merge(etc, options.etc_conflict)
        try:
            require_resolved(merge)
        except EtcConflict as exc:
            exc.hint = f"{exc.hint}, or give --etc-conflict"
            raise
        new = new_deployment(system, facts, candidate, options.etc_conflict)
        plan = plan_stage(facts, new, locked=options.download_only)
        objects = system.repository.objects
        supplies = Supplies(etc, candidate.resource, lambda content: objects.open(content.digest))
    run(plan, system, sink, supplies, dry_run=options.dry_run)
    if options.dry_run:
        return False
    collect_afterwards(system, sink)
    if image_id == facts.booted.image_id:
        sink(Message("The image has the tree of the booted one; its new metadata is recorded."))
        return False
    return True


def _already_staged(
    system: ReadableSystem, facts: Facts, wanted: ImageSpec, options: UpdateOptions, sink: Sink
) -> bool:
    plan = plan_announce(facts, locked=options.download_only)
    run(_choosing(facts, plan, options), system, sink, dry_run=options.dry_run)
    if options.download_only:
        sink(Message(f"No changes in staged image: {_name(wanted.reference)}"))
    elif not options.apply:
        sink(Message("Update already staged. To apply update run `bootc update --apply`"))
    return True


def _choosing(facts: Facts, plan: Plan, options: UpdateOptions) -> Plan:
    """Let the conflicts of what is staged be resolved as is asked for now, if anything is."""
    staged = facts.staged_id()
    origin = None if staged is None else facts.origin(staged)
    if staged is None or origin is None or options.etc_conflict is ConflictPolicy.FAIL:
        return plan
    recorded = [step.origin for step in plan.steps if isinstance(step, RecordOrigin)]
    chosen = with_policy(next(iter(recorded), origin), options.etc_conflict)
    if chosen == origin:
        return plan
    others = tuple(step for step in plan.steps if not isinstance(step, RecordOrigin))
    *before, commit = (RecordOrigin(staged, chosen), *others)
    return Plan(before=tuple(before), commit=commit)


def _source_of(facts: Facts, tag: str | None) -> ImageSpec:
    wanted = wanted_image(facts)
    if wanted is None:
        raise NoImageSource(
            "No image source specified: it is not on record where the booted image came from",
            hint="say it once: bootc switch IMAGE",
        )
    if tag is None:
        return wanted
    return ImageSpec(wanted.reference.with_tag(tag), wanted.signature)


def _is_image(facts: Facts, deployment: Digest, wanted: ImageSpec, source: Source) -> bool:
    origin = facts.origin(deployment)
    return (
        origin is not None
        and origin.manifest_digest == source.manifest_digest
        and origin.image == wanted.reference
        and origin.signature == wanted.signature
    )


def _unchanged(facts: Facts, wanted: ImageSpec) -> str:
    slot = "staged image" if facts.staged_id() is not None else None
    return f"No changes in{f' {slot}' if slot else ''}: {_name(wanted.reference)}"


def _name(reference: ImageReference) -> str:
    if reference.transport == "registry":
        return reference.name
    return f"ostree-unverified-image:{reference}"


def _layers_of(system: ReadableSystem, origin: Origin | None) -> tuple[Descriptor, ...]:
    """Return the layers of a deployed image; none where its manifest cannot be read."""
    if origin is None or origin.manifest_digest is None:
        return ()
    try:
        manifest, _ = read_documents(system.repository, origin.manifest_digest)
    except (Error, OSError) as exc:
        _log.warning("the deployed image cannot be compared with: %s", one_line(exc))
        return ()
    return manifest.layers


def _difference(old: tuple[Descriptor, ...], new: tuple[Descriptor, ...]) -> list[str]:
    """Return what a new manifest's layers mean, in upstream's words."""
    before = {layer.digest for layer in old}
    after = {layer.digest for layer in new}
    rows = (
        ("Total new layers:", list(new)),
        ("Removed layers:", [layer for layer in old if layer.digest not in after]),
        ("Added layers:", [layer for layer in new if layer.digest not in before]),
    )
    return [
        f"{label:<17} {len(layers):<4}  Size: {glib_size(sum(x.size_bytes for x in layers))}"
        for label, layers in rows
    ]
