"""What the journal is told about which plan."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bootc.boot.loader import Bootloader, LoaderTraces
from bootc.boot.menu_read import Menu
from bootc.boot.scheme import Scheme
from bootc.deploy.host.boot_state import BootedState, Staged
from bootc.deploy.host.facts import Facts
from bootc.deploy.journal import Event, JournalMessage
from bootc.deploy.plan import messages
from bootc.deploy.plan.steps import Announce, DiscardStagedMenu, Plan, StartFinalizer, Withdraw
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType
from support.sysroot import image_id

A, B = image_id("aa"), image_id("bb")
IMAGE = ImageReference("oci", "/x")
BOOTED = BootedState(
    image_id("cc"), missing_verity_allowed=True, loader=LoaderTraces(Bootloader.SYSTEMD)
)
NOTHING = Facts(BOOTED, Scheme(Bootloader.SYSTEMD, BootType.BLS), Menu(), Menu(), {})
HELD, RELEASED = Staged(A, locked=True), Staged(A, locked=False)


def facts(announced: Staged | None) -> Facts:
    return replace(NOTHING, booted=replace(BOOTED, staged=announced))


def staging(before: Staged | None, plan: Plan) -> messages.Messages:
    return messages.about_staging(facts(before), plan, Event.SWITCH_STAGED, IMAGE)


def announcing(staged: Staged) -> Plan:
    return Plan(before=(StartFinalizer(),), commit=Announce(staged.image_id, staged.locked))


@pytest.mark.parametrize(
    ("before", "plan"),
    [
        (None, Plan()),
        (HELD, Plan()),
        (None, Plan(commit=DiscardStagedMenu())),
        (RELEASED, Plan(commit=StartFinalizer())),
        (HELD, announcing(HELD)),
        (HELD, replace(announcing(HELD), before=(Withdraw(),))),
    ],
)
def test_what_stays_announced_is_not_worth_a_message(before: Staged | None, plan: Plan) -> None:
    assert staging(before, plan) == ()
    assert messages.about_dropping(facts(before), plan) == ()


@pytest.mark.parametrize(
    ("before", "after", "when"),
    [
        (None, HELD, "boots when it is released"),
        (None, RELEASED, "boots next"),
        (HELD, RELEASED, "boots next"),
        (RELEASED, HELD, "boots when it is released"),
        (Staged(B, locked=False), RELEASED, "boots next"),
    ],
)
def test_another_announcement(before: Staged | None, after: Staged, when: str) -> None:
    text = f"Staged deployment {A}, which {when}"
    told = (JournalMessage(Event.SWITCH_STAGED, text, A, IMAGE),)
    plan = announcing(after)
    assert staging(before, plan) == told
    assert staging(before, replace(plan, before=(Withdraw(), *plan.before))) == told


@pytest.mark.parametrize(
    "plan",
    [
        Plan(commit=Withdraw(), after=(DiscardStagedMenu(),)),
        Plan(before=(Withdraw(),), commit=DiscardStagedMenu()),
    ],
)
def test_a_withdrawn_announcement(plan: Plan) -> None:
    dropped = JournalMessage(Event.STAGED_DROPPED, f"Dropped the staged deployment {A}", A)
    assert staging(RELEASED, plan) == (dropped,)
    assert messages.about_dropping(facts(HELD), plan) == (dropped,)
    order = JournalMessage(Event.ROLLBACK, "Changed the order in which deployments boot")
    assert messages.about_rollback(facts(HELD), plan) == (dropped, order)
    deleted = JournalMessage(Event.DEPLOYMENT_DELETED, f"Deleted deployment {A}", A)
    assert messages.about_deletion(facts(HELD), plan, A) == (dropped, deleted)


def test_pins() -> None:
    assert messages.about_pin(A, pinned=True) == (
        JournalMessage(Event.PINNED, f"Pinned deployment {A}", A),
    )
    assert messages.about_pin(A, pinned=False) == (
        JournalMessage(Event.UNPINNED, f"Unpinned deployment {A}", A),
    )


def test_what_boots_next() -> None:
    assert messages.about_finalizing(A) == (
        JournalMessage(Event.FINALIZED, f"Deployment {A} boots next", A),
    )
