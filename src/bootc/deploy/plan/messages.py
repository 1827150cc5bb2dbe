"""What the journal is told about a plan that took effect.

Pure. ``docs/reference/journal.md`` is the rule. :func:`bootc.deploy.execute.run` sends the
messages, and sends nothing about a plan without steps.
"""

from __future__ import annotations

from bootc.deploy.host.boot_state import Staged
from bootc.deploy.host.facts import Facts
from bootc.deploy.journal import Event, JournalMessage
from bootc.deploy.plan.steps import Announce, Plan, Withdraw
from bootc.formats.digest import Digest
from bootc.formats.imgref import ImageReference

Messages = tuple[JournalMessage, ...]


def about_staging(
    facts: Facts, plan: Plan, event: Event, image: ImageReference | None = None
) -> Messages:
    """Return the message about the deployment that a plan announces or withdraws, if it does.

    Args:
        facts: The host before the plan.
        plan: The plan.
        event: What it means that a plan of this command announces another deployment.
        image: The image that the user asked for.
    """
    announced = _announced_after(facts, plan)
    if announced is None or announced == facts.booted.staged:
        return about_dropping(facts, plan)
    when = "boots when it is released" if announced.locked else "boots next"
    text = f"Staged deployment {announced.image_id}, which {when}"
    return (JournalMessage(event, text, announced.image_id, image),)


def about_dropping(facts: Facts, plan: Plan) -> Messages:
    """Return the message about the staged deployment that a plan withdraws, if it does."""
    before = facts.booted.staged
    if before is None or _announced_after(facts, plan) is not None:
        return ()
    text = f"Dropped the staged deployment {before.image_id}"
    return (JournalMessage(Event.STAGED_DROPPED, text, before.image_id),)


def about_rollback(facts: Facts, plan: Plan) -> Messages:
    """Return the messages about another order of booting."""
    text = "Changed the order in which deployments boot"
    return (*about_dropping(facts, plan), JournalMessage(Event.ROLLBACK, text))


def about_deletion(facts: Facts, plan: Plan, deployment: Digest) -> Messages:
    """Return the messages about a deployment that a plan removes."""
    text = f"Deleted deployment {deployment}"
    deletion = JournalMessage(Event.DEPLOYMENT_DELETED, text, deployment)
    return (*about_dropping(facts, plan), deletion)


def about_pin(deployment: Digest, *, pinned: bool) -> Messages:
    """Return the message about a deployment that is pinned or unpinned."""
    if pinned:
        return (JournalMessage(Event.PINNED, f"Pinned deployment {deployment}", deployment),)
    return (JournalMessage(Event.UNPINNED, f"Unpinned deployment {deployment}", deployment),)


def about_addon(name: str, deployment: Digest | None, *, added: bool) -> JournalMessage:
    """Return the message about an add-on that is added or removed; for all without deployment."""
    where = "all deployments" if deployment is None else f"deployment {deployment}"
    if added:
        return JournalMessage(Event.ADDON_ADDED, f"Added add-on {name} to {where}", deployment)
    text = f"Removed add-on {name} from {where}"
    return JournalMessage(Event.ADDON_REMOVED, text, deployment)


def about_finalizing(deployment: Digest) -> Messages:
    """Return the message about a deployment that boots next."""
    return (JournalMessage(Event.FINALIZED, f"Deployment {deployment} boots next", deployment),)


def _announced_after(facts: Facts, plan: Plan) -> Staged | None:
    """Return the deployment that is announced when a plan has been carried out."""
    announced = facts.booted.staged
    for step in plan.steps:
        match step:
            case Withdraw():
                announced = None
            case Announce(deployment, locked):
                announced = Staged(deployment, locked)
    return announced
