"""``upgrade`` and ``switch``: another image for the next boot.

The outcome depends only on the image that the user wants:

* The image is already staged, or it is booted and nothing is staged. Nothing changes, and a
  message says so.
* Its tree is that of the booted or of the staged deployment. The command brings the origin of
  that deployment up to date. For the booted one it also drops the staged deployment. A rollback
  that is queued stays queued.
* Its tree is that of another deployment in the menu. That deployment boots next.
* Otherwise the image is staged, in place of a staged deployment if there is one.

The command pulls and checks the image, merges ``/etc`` on trial and counts the room for the
kernel before it touches the staged deployment.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from bootc.deploy.check import is_image, no_changes, source_of
from bootc.deploy.cleanup import collect_afterwards
from bootc.deploy.etc.apply import image_etc
from bootc.deploy.etc.local import read_local_etc, with_policy
from bootc.deploy.etc.merge import ConflictPolicy
from bootc.deploy.execute import Supplies, run
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.host.session import HostAccess
from bootc.deploy.host.status import wanted_image
from bootc.deploy.host.survey import survey
from bootc.deploy.journal import Event
from bootc.deploy.plan.finalize import EtcConflict, require_resolved
from bootc.deploy.plan.messages import about_dropping, about_pin, about_staging
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
from bootc.deploy.protection import (
    Protection,
    check_counter,
    check_losses,
    losses,
    notice,
    protection_of,
    staged_losses,
)
from bootc.events import Message, Sink
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import Origin, Waiver
from bootc.oci import sigpolicy
from bootc.oci.source import open_source


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """How to do an update.

    Attributes:
        apply: The caller reboots into it.
        download_only: Stage it, and do not boot it until the user releases it.
        dry_run: Pull the image and show the steps, and do nothing else.
        etc_conflict: How to resolve conflicts between local changes in ``/etc`` and the image.
        allow_weaker: Accept an image that protects less than a booted deployment which requires
            fs-verity.
    """

    apply: bool = False
    download_only: bool = False
    dry_run: bool = False
    etc_conflict: ConflictPolicy = ConflictPolicy.FAIL
    allow_weaker: bool = False


@dataclass(frozen=True, slots=True)
class _Update:
    """One run of a command.

    Attributes:
        system: The host.
        facts: The facts about it, before the command changes anything.
        options: How to do the update.
        sink: Told of progress and outcome.
        event: What the journal calls it when the command announces another deployment.
        image: The image that the user asked for, for the journal.
    """

    system: HostAccess
    facts: Facts
    options: UpdateOptions
    sink: Sink
    event: Event
    image: ImageReference | None = None

    def carry_out(self, plan: Plan, supplies: Supplies | None = None) -> None:
        """Carry out a plan, and tell the journal what became of the staged deployment."""
        messages = about_staging(self.facts, plan, self.event, self.image)
        dry_run = self.options.dry_run
        run(plan, self.system, self.sink, supplies, dry_run=dry_run, messages=messages)

    def collect_afterwards(self) -> None:
        """Clean up, unless it is a dry run."""
        if not self.options.dry_run:
            collect_afterwards(self.system, self.sink)

    def say(self, text: str) -> None:
        """Show a line to the user."""
        self.sink(Message(text))


def upgrade(
    system: HostAccess, options: UpdateOptions, sink: Sink, *, tag: str | None = None
) -> bool:
    """Get the newest image from where the image of this host came from.

    Args:
        system: The system.
        options: How.
        sink: Told of progress and outcome.
        tag: Of the image, in place of the one it has.

    Returns:
        Whether another deployment than the booted one boots next.

    Raises:
        NoImageSource: no image is on record.
        ProtectsLess: the image protects less than the booted deployment. Nothing has been touched.
        WouldNotBoot: the counter in the TPM refuses its security version. Nothing has been touched.
        EtcConflict: local changes exclude the image's. Nothing has been touched.
        NoSpaceOnBoot: there is no room for its kernel. Nothing has been touched.
        Error, OSError: as pulling and writing raise.
    """
    facts = survey(system, dry_run=options.dry_run)
    update = _Update(system, facts, options, sink, Event.UPGRADE_STAGED)
    return _update_to(source_of(facts, tag), update)


def switch(
    system: HostAccess,
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
    facts = survey(system, dry_run=options.dry_run)
    policy = sigpolicy.enforced_policy(target.reference, target.signature)
    update = _Update(system, facts, options, sink, Event.SWITCH_STAGED, target.reference)
    if policy is not None:
        update.say(policy.notice)
    if wanted_image(facts) == target:
        update.say("Image specification is unchanged.")
        boots_next = facts.staged_id() is not None
        if boots_next and options.apply:
            update.carry_out(_announcing(update, locked=False))
    else:
        boots_next = _update_to(target, update)
    if retain:
        # Not before: if the switch fails, there is no reason to keep the booted deployment.
        booted = facts.booted.image_id
        pin = plan_pin(facts, booted, pinned=True)
        messages = about_pin(booted, pinned=True)
        run(pin, system, sink, dry_run=options.dry_run, messages=messages)
    return boots_next


def cancel(system: HostAccess, sink: Sink, *, dry_run: bool = False) -> None:
    """Drop the staged deployment, or the rest of an update that was not finalized.

    Raises:
        NothingStaged: there is neither.
    """
    facts = survey(system, dry_run=dry_run)
    plan = plan_cancel(facts)
    run(plan, system, sink, dry_run=dry_run, messages=about_dropping(facts, plan))
    if not dry_run:
        sink(Message("The staged deployment is dropped."))
        collect_afterwards(system, sink)


def release(system: HostAccess, options: UpdateOptions, sink: Sink) -> bool:
    """Let a deployment boot next that was only downloaded.

    Returns:
        Whether another deployment than the booted one boots next: always.

    Raises:
        NothingStaged: nothing was downloaded.
        ProtectsLess: another program staged it, and it protects less than the booted deployment.
    """
    facts = survey(system, dry_run=options.dry_run)
    update = _Update(system, facts, options, sink, Event.UPGRADE_STAGED)
    if facts.staged_id() is None or facts.booted.staged is None:
        raise nothing_staged()
    if not facts.booted.staged.locked:
        update.say("Staged deployment is present and not in download only mode.")
        if not options.apply:
            update.say("Use `bootc update --apply` to apply the update.")
    update.carry_out(_announcing(update, locked=False))
    return True


def _update_to(wanted: ImageSpec, update: _Update) -> bool:
    """Let an image boot next; return whether another deployment than the booted one does."""
    facts = update.facts
    with open_source(wanted.reference, wanted.signature) as source:
        staged = facts.staged_id()
        if staged is not None and is_image(facts, staged, wanted, source):
            _release_or_hold(wanted, update)
            return True
        if staged is None and is_image(facts, facts.booted.image_id, wanted, source):
            if droppable(facts):
                # An update that was not finalized, and is not offered any more.
                update.carry_out(plan_cancel(facts))
                update.collect_afterwards()
            update.say(no_changes(wanted.reference, staged=False))
            return False
        candidate = pull_candidate(update.system, facts, wanted, source, update.sink)
    return _deploy(candidate, update)


def _deploy(candidate: Candidate, update: _Update) -> bool:
    """Let a pulled image boot next; return whether another deployment than the booted one does."""
    unified = candidate.origin.boot_type.is_unified
    protection = Protection(
        unified, strict=not candidate.missing_verity_allowed, version=candidate.version
    )
    check_counter(update.facts, protection)
    lost = losses(update.facts, protection)
    if check_losses(update.facts, lost, allowed=update.options.allow_weaker):
        origin = candidate.origin.with_waiver(Waiver.WEAKER)
        candidate = dataclasses.replace(candidate, origin=origin)
    for loss in lost:
        update.say(notice(loss))
    plan, supplies = _planned(candidate, update)
    update.carry_out(plan, supplies)
    if update.options.dry_run:
        return False
    update.collect_afterwards()
    if candidate.image_id == update.facts.booted.image_id:
        update.say("The image has the tree of the booted one; its new metadata is recorded.")
        return False
    return True


def _planned(candidate: Candidate, update: _Update) -> tuple[Plan, Supplies | None]:
    """Plan that the deployment with the tree of an image boots next, or a new deployment."""
    facts, image_id, origin = update.facts, candidate.image_id, candidate.origin
    locked = update.options.download_only
    if image_id == facts.booted.image_id:
        return plan_record(facts, image_id, origin, locked=locked), None
    if image_id == facts.staged_id():
        return _choosing(plan_record(facts, image_id, origin, locked=locked), update), None
    if image_id in facts.bootable():
        front = plan_front(facts, image_id, origin, locked=locked)
        return with_room(update.system, facts, front), None
    return _plan_new(candidate, update)


def _plan_new(candidate: Candidate, update: _Update) -> tuple[Plan, Supplies]:
    """Plan a new deployment.

    Raises:
        EtcConflict: ``/etc`` could not be merged now, and so probably not at shutdown.
    """
    system, policy = update.system, update.options.etc_conflict
    objects = system.repository.objects
    etc = image_etc(objects, candidate.image_id)
    with read_local_etc(system) as local:
        merge = local.merge(etc, policy)
    try:
        require_resolved(merge)
    except EtcConflict as exc:
        exc.hint = f"{exc.hint}, or give --etc-conflict"
        raise
    new = new_deployment(system, update.facts, candidate, policy)
    plan = plan_stage(update.facts, new, locked=update.options.download_only)
    return plan, Supplies(etc, candidate.resource, lambda content: objects.open(content.digest))


def _release_or_hold(wanted: ImageSpec, update: _Update) -> None:
    """Let the staged deployment boot next, or hold it back, as the options say."""
    plan = _announcing(update, locked=update.options.download_only)
    update.carry_out(_choosing(plan, update))
    if update.options.download_only:
        update.say(no_changes(wanted.reference, staged=True))
    elif not update.options.apply:
        update.say("Update already staged. To apply update run `bootc update --apply`")


def _announcing(update: _Update, *, locked: bool) -> Plan:
    """Plan that the staged deployment boots next, or hold it back.

    Raises:
        ProtectsLess: it protects less than the booted deployment, and the user did not accept that.
            Another program staged it.
        WouldNotBoot: the counter in the TPM refuses its security version.
    """
    plan, facts = plan_announce(update.facts, locked=locked), update.facts
    staged = facts.staged_id()
    origin = None if staged is None else facts.origin(staged)
    if locked:
        return plan
    then = None if staged is None else protection_of(facts, staged)
    if then is not None:
        check_counter(facts, then)
    if origin is not None and Waiver.WEAKER in origin.waived:
        return plan
    if check_losses(facts, staged_losses(facts), allowed=update.options.allow_weaker):
        return _recording(plan, facts, lambda recorded: recorded.with_waiver(Waiver.WEAKER))
    return plan


def _choosing(plan: Plan, update: _Update) -> Plan:
    """Let the staged deployment's conflicts be resolved as the options say, if they say it."""
    policy = update.options.etc_conflict
    if policy is ConflictPolicy.FAIL:
        return plan
    return _recording(plan, update.facts, lambda recorded: with_policy(recorded, policy))


def _recording(plan: Plan, facts: Facts, change: Callable[[Origin], Origin]) -> Plan:
    """Let a plan for the staged deployment record a changed origin, unless nothing changes."""
    staged = facts.staged_id()
    origin = None if staged is None else facts.origin(staged)
    if staged is None or origin is None:
        return plan
    recorded = [step.origin for step in plan.steps if isinstance(step, RecordOrigin)]
    base = next(iter(recorded), origin)
    changed = change(base)
    if changed == base:
        return plan
    others = tuple(step for step in plan.steps if not isinstance(step, RecordOrigin))
    *before, commit = (RecordOrigin(staged, changed), *others)
    return Plan(before=tuple(before), commit=commit)
