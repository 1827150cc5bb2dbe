"""What is planned for which system: tables of facts, and the exact steps in their order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bootc.boot.artifacts import Artifact, ArtifactKind
from bootc.boot.findings import Finding, FindingKind
from bootc.boot.loader import Bootloader, LoaderTraces
from bootc.boot.menu_compose import NewItem, new_item
from bootc.boot.menu_read import Item, Menu
from bootc.boot.scheme import Scheme
from bootc.deploy.etc.merge import Conflict, Merge
from bootc.deploy.host.boot_state import BootedState, Staged
from bootc.deploy.host.facts import Facts, StateFacts
from bootc.deploy.host.notes import FinalizeFailure
from bootc.deploy.plan.cleanup import live_deployments, needed_artifacts, plan_gc
from bootc.deploy.plan.finalize import (
    CannotFinalize,
    EtcConflict,
    plan_finalize,
    require_resolved,
    staged_for_finalizing,
)
from bootc.deploy.plan.reorder import (
    DeploymentInUse,
    DeploymentNotFound,
    NoRollback,
    plan_delete,
    plan_front,
    plan_pin,
    plan_rollback,
)
from bootc.deploy.plan.stage import (
    NewDeployment,
    NothingStaged,
    kept_items,
    leftovers,
    plan_announce,
    plan_cancel,
    plan_record,
    plan_stage,
)
from bootc.deploy.plan.steps import Announce, Plan
from bootc.formats.bls import Entry
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import BootType, Origin
from bootc.formats.osrelease import OsRelease
from support import etctrees

SCHEME = Scheme(Bootloader.SYSTEMD, BootType.BLS)
NO_CHANGES = Merge(etctrees.etc(), (), ())
FAILED = FinalizeFailure("no room")


def d(letter: str) -> Digest:
    """Return a deployment called by one of the letters a to f."""
    return Digest.from_hex(letter * 128)


def origin(letter: str, **more: Any) -> Origin:
    manifest = OciDigest.parse(f"sha256:{letter * 64}")
    image = ImageReference.parse(f"docker://example.com/{letter}")
    return replace(Origin(image=image, boot_type=BootType.BLS, manifest_digest=manifest), **more)


def new(letter: str, kernel: str | None = None) -> NewItem:
    return new_item(
        SCHEME, d(letter), OsRelease({}), options="rw", artifact=kernel and d(kernel).hex
    )


def item(letter: str, kernel: str | None = None) -> Item:
    made = new(letter, kernel)
    return Item(f"bootc_{letter}.conf", made.deployment, made.artifact, made.entry)


def menu(letters: str) -> Menu:
    return Menu(tuple(item(letter) for letter in letters))


def facts(
    active: str,
    *,
    booted: str = "a",
    staged: str = "",
    marker: str = "",
    locked: bool = False,
    states: str | None = None,
    pinned: str = "",
    failed: str = "",
) -> Facts:
    """Return facts in short: deployments are letters, menus are words."""
    known = states if states is not None else "".join(dict.fromkeys(active + staged + booted))
    return Facts(
        booted=BootedState(
            d(booted),
            False,
            LoaderTraces(Bootloader.SYSTEMD),
            Staged(d(marker), locked) if marker else None,
        ),
        scheme=SCHEME,
        active=menu(active),
        staged=menu(staged),
        states={
            d(letter): StateFacts(
                d(letter),
                origin(letter),
                pinned=letter in pinned,
                failure=FAILED if letter in failed else None,
            )
            for letter in known
        },
    )


def short(plan: Plan) -> list[str]:
    """Return a plan's lines with deployments as letters."""
    lines = plan.lines()
    for letter in "abcdef":
        lines = [line.replace(letter * 128, letter.upper()) for line in lines]
    return lines


def artifact(letter: str, kind: ArtifactKind = ArtifactKind.KERNEL) -> Artifact:
    return Artifact(d(letter).hex, kind, f"EFI/Linux/{letter}", 7, 0)


# -- staging


def staging(letter: str, kernel_size: int | None = 10, evict: str = "") -> NewDeployment:
    return NewDeployment(
        new(letter), origin(letter), kernel_size, tuple(artifact(e) for e in evict)
    )


STAGED_ANEW = [
    "  start the service that finalizes it at shutdown",
    "  write the staged menu: C, A",
    "* announce deployment C, to boot next",
]
STAGES: dict[str, tuple[Facts, NewDeployment, list[str]]] = {
    "the first update": (
        facts("a"),
        staging("c"),
        [
            "  make the state of deployment C",
            "  write the kernel of deployment C (10 bytes)",
            *STAGED_ANEW,
        ],
    ),
    "a shared kernel, and the rollback leaves": (
        facts("ab"),
        staging("c", None),
        ["  make the state of deployment C", *STAGED_ANEW],
    ),
    "in place of another, with pins and evicted kernels": (
        facts("abe", staged="da", marker="d", pinned="e"),
        staging("c", 10, "f"),
        [
            "  remove the unused kernel F (7 bytes)",
            "  make the state of deployment C",
            "  write the kernel of deployment C (10 bytes)",
            "  start the service that finalizes it at shutdown",
            "  withdraw the announcement of the staged deployment",
            "  write the staged menu: C, A, E",
            "* announce deployment C, to boot next",
            "  remove the state of deployment D",
        ],
    ),
    "in the room of another": (
        facts("ab", staged="da", marker="d"),
        staging("c", 10, "d"),
        [
            "  withdraw the announcement of the staged deployment",
            "  remove the staged menu",
            "  remove the unused kernel D (7 bytes)",
            "  make the state of deployment C",
            "  write the kernel of deployment C (10 bytes)",
            *STAGED_ANEW,
            "  remove the state of deployment D",
        ],
    ),
    "while a rollback is queued": (
        facts("ba"),
        staging("c", None),
        ["  make the state of deployment C", *STAGED_ANEW],
    ),
    "what an interruption left of it": (
        facts("a", states="ac"),
        staging("c", None),
        [
            "  move the old state of deployment C aside",
            "  make the state of deployment C",
            *STAGED_ANEW,
        ],
    ),
    "what could not be finalized": (
        facts("a", staged="ca", failed="c"),
        staging("c", None),
        [
            "  move the old state of deployment C aside",
            "  make the state of deployment C",
            *STAGED_ANEW,
        ],
    ),
    "while the entry of what runs is lost": (
        facts("b"),
        replace(staging("c", None), beside=(new("a"),)),
        ["  make the state of deployment C", *STAGED_ANEW],
    ),
}


@pytest.mark.parametrize(("found", "deployed", "lines"), STAGES.values(), ids=STAGES)
def test_staging(found: Facts, deployed: NewDeployment, lines: list[str]) -> None:
    plan = plan_stage(found, deployed, locked=False)
    assert short(plan) == lines
    assert isinstance(plan.commit, Announce)


def test_an_entry_made_anew_at_staging_stays_at_finalizing() -> None:
    found = facts("b", staged="ca", marker="c")
    assert [kept.deployment for kept in kept_items(found)] == [d("a")]


def test_staging_for_later_is_announced_so() -> None:
    plan = plan_stage(facts("a"), staging("c"), locked=True)
    assert short(plan)[-1] == "* announce deployment C, to boot when asked to"


def test_staging_tells_what_goes() -> None:
    plan = plan_stage(facts("abe", staged="da", marker="d", pinned="e"), staging("c"), locked=False)
    assert plan.notes == (
        f"The staged deployment {d('d')} is replaced.",
        f"Deployment {d('b')} leaves the menu with the next boot; pin it to keep it.",
    )


@pytest.mark.parametrize(
    ("was_locked", "locked", "lines"),
    [
        (False, False, ["* start the service that finalizes it at shutdown"]),
        (True, True, []),
        (
            True,
            False,
            [
                "  start the service that finalizes it at shutdown",
                "* announce deployment C, to boot next",
            ],
        ),
        (False, True, ["* announce deployment C, to boot when asked to"]),
    ],
)
def test_announcing(was_locked: bool, locked: bool, lines: list[str]) -> None:
    found = facts("a", staged="ca", marker="c", locked=was_locked)
    assert short(plan_announce(found, locked=locked)) == lines


CANCELS: dict[str, tuple[Facts, list[str]]] = {
    "staged": (
        facts("ab", staged="ca", marker="c"),
        [
            "* withdraw the announcement of the staged deployment",
            "  remove the staged menu",
            "  remove the state of deployment C",
        ],
    ),
    "failed": (
        facts("ab", staged="ca", failed="c"),
        ["* remove the staged menu", "  remove the state of deployment C"],
    ),
    "never announced": (
        facts("ab", staged="ca"),
        ["* remove the staged menu", "  remove the state of deployment C"],
    ),
}


@pytest.mark.parametrize(("found", "lines"), CANCELS.values(), ids=CANCELS)
def test_cancelling(found: Facts, lines: list[str]) -> None:
    assert short(plan_cancel(found)) == lines


@pytest.mark.parametrize(
    "found",
    [
        facts("ab"),
        facts("ab", marker="a"),
        # An announcement of which nothing could become.
        facts("a", marker="c", states="ac"),
        facts("a", staged="ca", marker="c", states="a"),
    ],
    ids=["nothing", "soft rebooted", "no entry", "no state"],
)
def test_nothing_staged(found: Facts) -> None:
    for plan in (plan_cancel, lambda facts: plan_announce(facts, locked=False)):
        with pytest.raises(NothingStaged, match="No staged deployment found"):
            plan(found)


RECORDS: dict[str, tuple[Facts, str, list[str]]] = {
    "booted": (facts("ab"), "a", ["* record that deployment A is docker://example.com/f"]),
    "booted, and another is staged": (
        facts("ab", staged="ca", marker="c"),
        "a",
        [
            "  withdraw the announcement of the staged deployment",
            "  remove the staged menu",
            "* record that deployment A is docker://example.com/f",
            "  remove the state of deployment C",
        ],
    ),
    "staged": (
        facts("ab", staged="ca", marker="c"),
        "c",
        [
            "  start the service that finalizes it at shutdown",
            "* record that deployment C is docker://example.com/f",
        ],
    ),
    "booted, and another could not be finalized": (
        facts("ab", staged="ca", failed="c"),
        "a",
        [
            "  remove the staged menu",
            "* record that deployment A is docker://example.com/f",
            "  remove the state of deployment C",
        ],
    ),
    "held back until now": (
        facts("ab", staged="ca", marker="c", locked=True),
        "c",
        [
            "  start the service that finalizes it at shutdown",
            "  announce deployment C, to boot next",
            "* record that deployment C is docker://example.com/f",
        ],
    ),
}


@pytest.mark.parametrize(("found", "letter", "lines"), RECORDS.values(), ids=RECORDS)
def test_recording_new_metadata(found: Facts, letter: str, lines: list[str]) -> None:
    assert short(plan_record(found, d(letter), origin("f"), locked=False)) == lines


def test_kept_and_left_over() -> None:
    found = facts("bae", staged="ca", states="abcdef", pinned="ef", failed="cf")
    assert [kept.deployment for kept in kept_items(found)] == [d("a"), d("e")]
    # Neither d, of which nothing is known, nor f, which is pinned.
    assert leftovers(found) == [d("c")]


# -- ordering

REWRITTEN = "  remove the staged menu"
ROLLBACKS: dict[str, tuple[Facts, list[str], tuple[str, ...]]] = {
    "to the second": (
        facts("abe"),
        [
            REWRITTEN,
            "  write the staged menu: B, A, E",
            "* exchange the staged menu with the live one",
        ],
        ("Next boot: rollback deployment",),
    ),
    "and back again": (
        facts("bae"),
        [
            REWRITTEN,
            "  write the staged menu: A, B, E",
            "* exchange the staged menu with the live one",
        ],
        ("notice: Reverting queued rollback state", "Next boot: current deployment"),
    ),
    "past an entry without state": (
        facts("abe", states="ae"),
        [
            REWRITTEN,
            "  write the staged menu: E, A, B",
            "* exchange the staged menu with the live one",
        ],
        ("Next boot: rollback deployment",),
    ),
    "with something staged": (
        facts("ab", staged="ca", marker="c"),
        [
            "  withdraw the announcement of the staged deployment",
            REWRITTEN,
            "  write the staged menu: B, A",
            "* exchange the staged menu with the live one",
        ],
        (
            "Next boot: rollback deployment",
            f"The staged deployment {d('c')} is dropped; bootc upgrade stages it anew.",
        ),
    ),
    "the booted entry is lost": (
        facts("be"),
        [],
        ("Next boot: rollback deployment",),
    ),
    "the booted entry is lost, with something staged": (
        facts("be", staged="cb", marker="c"),
        [
            "  withdraw the announcement of the staged deployment",
            REWRITTEN,
            "  write the staged menu: B, E",
            "* exchange the staged menu with the live one",
        ],
        (
            "Next boot: rollback deployment",
            f"The staged deployment {d('c')} is dropped; bootc upgrade stages it anew.",
        ),
    ),
}


@pytest.mark.parametrize(("found", "lines", "notes"), ROLLBACKS.values(), ids=ROLLBACKS)
def test_rolling_back(found: Facts, lines: list[str], notes: tuple[str, ...]) -> None:
    plan = plan_rollback(found)
    assert (short(plan), plan.notes) == (lines, notes)


@pytest.mark.parametrize("found", [facts("a"), facts("ab", states="a"), facts("")])
def test_no_rollback(found: Facts) -> None:
    with pytest.raises(NoRollback, match="No rollback available"):
        plan_rollback(found)


def test_an_image_that_is_in_the_menu_comes_to_the_front() -> None:
    plan = plan_front(facts("ab", staged="ca", marker="c"), d("b"), origin("f"), locked=False)
    assert short(plan) == [
        "  record that deployment B is docker://example.com/f",
        "  withdraw the announcement of the staged deployment",
        "  remove the staged menu",
        "  write the staged menu: B, A",
        "* exchange the staged menu with the live one",
    ]


def test_an_image_at_the_front_stays_there() -> None:
    plan = plan_front(facts("ba"), d("b"), origin("f"), locked=False)
    assert short(plan) == ["* record that deployment B is docker://example.com/f"]


def test_an_image_that_shall_only_be_there_is_there() -> None:
    plan = plan_front(facts("ab", staged="ca", marker="c"), d("b"), origin("f"), locked=True)
    assert short(plan) == ["* record that deployment B is docker://example.com/f"]
    assert plan.notes == (f"The image is that of deployment {d('b')}, which the menu has already.",)


def test_what_else_an_origin_says_is_kept() -> None:
    extra = (("section", "key", "value"),)
    found = facts("ab")
    states = dict(found.states)
    states[d("b")] = replace(states[d("b")], origin=origin("b", extra=extra))
    plan = plan_front(replace(found, states=states), d("b"), origin("f"), locked=False)
    recorded = plan.steps[0]
    assert getattr(recorded, "origin", None) == origin("f", extra=extra)


DELETIONS: dict[str, tuple[Facts, str, list[str]]] = {
    "not the first": (
        facts("abe"),
        "b",
        ["* remove the boot entry bootc_b.conf", "  remove the state of deployment B"],
    ),
    "the first": (
        facts("bea"),
        "b",
        [
            REWRITTEN,
            "  write the staged menu: A, E",
            "* exchange the staged menu with the live one",
            "  remove the state of deployment B",
        ],
    ),
    "what could not be finalized": (
        facts("ab", staged="ca", failed="ce"),
        "c",
        ["* remove the state of deployment C"],
    ),
    "staged": (
        facts("ab", staged="ca", marker="c"),
        "c",
        [
            "* withdraw the announcement of the staged deployment",
            REWRITTEN,
            "  remove the state of deployment C",
        ],
    ),
    "without an entry": (facts("a", states="ad"), "d", ["* remove the state of deployment D"]),
}


@pytest.mark.parametrize(("found", "letter", "lines"), DELETIONS.values(), ids=DELETIONS)
def test_deleting(found: Facts, letter: str, lines: list[str]) -> None:
    assert short(plan_delete(found, d(letter))) == lines


@pytest.mark.parametrize(
    ("found", "letter", "error", "text"),
    [
        (facts("ab"), "a", DeploymentInUse, "Cannot delete currently booted deployment"),
        (facts("ab", pinned="b"), "b", DeploymentInUse, "is pinned"),
        (facts("ab"), "c", DeploymentNotFound, "Deployment ID not found"),
        (facts("b"), "b", DeploymentInUse, "nothing would be left to boot"),
        (facts("be", states="b"), "b", DeploymentInUse, "nothing would be left to boot"),
    ],
)
def test_what_cannot_be_deleted(
    found: Facts, letter: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        plan_delete(found, d(letter))


@pytest.mark.parametrize(
    ("found", "letter", "pinned", "lines"),
    [
        (facts("ab"), "b", True, ["* pin deployment B"]),
        (facts("ab"), "a", True, ["* pin deployment A"]),
        (facts("b"), "a", True, ["* pin deployment A"]),
        (facts("ab", pinned="b"), "b", True, []),
        (facts("ab", pinned="b"), "b", False, ["* unpin deployment B"]),
        (facts("ab"), "b", False, []),
        # Its entry is lost, and nothing should keep it for that reason.
        (facts("a", states="ab", pinned="b"), "b", False, ["* unpin deployment B"]),
    ],
)
def test_pinning(found: Facts, letter: str, pinned: bool, lines: list[str]) -> None:
    assert short(plan_pin(found, d(letter), pinned=pinned)) == lines


def test_what_cannot_be_pinned() -> None:
    with pytest.raises(DeploymentNotFound):
        plan_pin(facts("a", states="ab"), d("b"), pinned=True)
    with pytest.raises(DeploymentInUse, match="was never booted"):
        plan_pin(facts("a", staged="ca", marker="c"), d("c"), pinned=True)


# -- finalizing


def edited(found: Facts, letter: str) -> Facts:
    """Add a kernel argument to an entry of the live menu."""
    items = [
        replace(kept, entry=replace(kept.entry, options="rw debug"))
        if kept.deployment == d(letter) and isinstance(kept.entry, Entry)
        else kept
        for kept in found.active.items
    ]
    return replace(found, active=Menu(tuple(items)))


FINALIZED: dict[str, tuple[Facts, list[str]]] = {
    "as it was staged": (
        facts("ab", staged="ca", marker="c"),
        [
            "  give deployment C the merged /etc (0 local changes)",
            "* exchange the staged menu with the live one",
            "  withdraw the announcement of the staged deployment",
        ],
    ),
    "pinned since": (
        facts("ab", staged="ca", marker="c", pinned="b"),
        [
            "  give deployment C the merged /etc (0 local changes)",
            "  withdraw the announcement of the staged deployment",
            "  write the staged menu: C, A, B",
            "* exchange the staged menu with the live one",
        ],
    ),
    "an entry was edited since": (
        edited(facts("ab", staged="ca", marker="c"), "a"),
        [
            "  give deployment C the merged /etc (0 local changes)",
            "  withdraw the announcement of the staged deployment",
            "  write the staged menu: C, A",
            "* exchange the staged menu with the live one",
        ],
    ),
    "upstream left the entry of an earlier staging in it": (
        facts("ab", staged="eca", marker="c", states="abce"),
        [
            "  give deployment C the merged /etc (0 local changes)",
            "  withdraw the announcement of the staged deployment",
            "  write the staged menu: C, A",
            "* exchange the staged menu with the live one",
        ],
    ),
    "upstream kept the first entry beside it, and not the booted one": (
        facts("ba", staged="cb", marker="c", booted="a"),
        [
            "  give deployment C the merged /etc (0 local changes)",
            "  withdraw the announcement of the staged deployment",
            "  write the staged menu: C, A",
            "* exchange the staged menu with the live one",
        ],
    ),
    "interrupted after the exchange": (
        facts("ca", staged="ab", marker="c"),
        ["  withdraw the announcement of the staged deployment", "  remove the staged menu"],
    ),
    "exchanged by somebody who forgot to withdraw it": (
        facts("ca", marker="c"),
        ["  withdraw the announcement of the staged deployment", "  remove the staged menu"],
    ),
}


@pytest.mark.parametrize(("found", "lines"), FINALIZED.values(), ids=FINALIZED)
def test_finalizing(found: Facts, lines: list[str]) -> None:
    assert staged_for_finalizing(found) == d("c")
    assert found.is_finalized(d("c")) is (found.active.items[0].deployment == d("c"))
    assert short(plan_finalize(found, d("c"), NO_CHANGES)) == lines


@pytest.mark.parametrize(
    "found",
    [
        facts("ab"),
        facts("ab", staged="ca"),
        facts("ab", staged="ca", marker="c", locked=True),
        facts("ab", marker="a"),
        facts("ac", marker="c"),
    ],
    ids=["nothing", "not announced", "held back", "soft rebooted", "rolled back by upstream"],
)
def test_nothing_to_finalize(found: Facts) -> None:
    assert staged_for_finalizing(found) is None


@pytest.mark.parametrize(
    "found", [facts("a", marker="c", states="ac"), facts("a", staged="ca", marker="c", states="a")]
)
def test_what_cannot_be_finalized(found: Facts) -> None:
    with pytest.raises(CannotFinalize, match="has no state or no boot entry"):
        staged_for_finalizing(found)


def test_conflicts_keep_from_finalizing() -> None:
    conflicts = (Conflict(b"x", "x is odd", None), Conflict(b"y", "y is odd", None))
    merge = Merge(etctrees.etc(), (), conflicts)
    with pytest.raises(EtcConflict, match="x is odd; y is odd") as caught:
        require_resolved(merge)
    assert caught.value.conflicts == conflicts
    with pytest.raises(EtcConflict):
        plan_finalize(facts("ab", staged="ca", marker="c"), d("c"), merge)


# -- cleaning up


def tags(letters: str) -> dict[str, OciDigest]:
    return {f"oci/{letter}": OciDigest.parse(f"sha256:{letter * 64}") for letter in letters}


CLEANED: dict[str, tuple[Facts, str, list[str]]] = {
    "nothing": (facts("ab"), "ab", []),
    "what is left of an update": (
        facts("ab", staged="ca", states="abcd"),
        "abcd",
        [
            REWRITTEN,
            "  remove the unused kernel C (7 bytes)",
            "  remove the unused kernel D (7 bytes)",
            "  remove the state of deployment C",
            "  remove the state of deployment D",
        ],
    ),
    "not what is staged": (facts("ab", staged="ca", marker="c"), "abc", []),
    "not what failed": (facts("ab", staged="ca", failed="c"), "abc", []),
    "not what is pinned, or runs": (facts("b", pinned="d", states="abd"), "b", []),
}


@pytest.mark.parametrize(("found", "kernels", "lines"), CLEANED.values(), ids=CLEANED)
def test_cleaning_up(found: Facts, kernels: str, lines: list[str]) -> None:
    artifacts = [artifact(kernel) for kernel in kernels]
    assert short(plan_gc(found, artifacts, {}, repository=False)) == lines


def test_cleaning_up_the_repository() -> None:
    plan = plan_gc(facts("ab", states="ab"), [], tags("bc"), repository=True)
    assert [line.replace("sha256:", "") for line in plan.lines()] == [
        f"  keep image {'a' * 64}",
        "  no longer keep image oci/c",
        "  collect garbage in the repository",
    ]
    assert getattr(plan.steps[-1], "roots", None) == (d("a"), d("b"))


@pytest.mark.parametrize("kind", [FindingKind.MALFORMED, FindingKind.UNREADABLE])
def test_a_damaged_menu_keeps_all(kind: FindingKind) -> None:
    found = facts("ab", states="abc")
    damaged = replace(found.active, findings=(Finding(kind, "bootc_x.conf", "odd"),))
    for active in (damaged, Menu()):
        plan = plan_gc(replace(found, active=active), [artifact("c")], {}, repository=True)
        assert (plan.steps, len(plan.notes)) == ((), 1)


def test_a_damaged_entry_of_others_keeps_nothing() -> None:
    found = facts("ab", states="abc")
    finding = Finding(FindingKind.MALFORMED, "theirs.conf", "odd")
    active = replace(found.active, foreign=("theirs.conf",), findings=(finding,))
    plan = plan_gc(replace(found, active=active), [], {}, repository=False)
    assert short(plan) == ["  remove the state of deployment C"]


def test_kernels_of_lost_entries_stay() -> None:
    found = facts("b", pinned="d", states="abd")
    artifacts = [artifact(letter) for letter in "abce"]
    plan = plan_gc(found, artifacts, {}, repository=False, lost={d("a").hex, d("e").hex})
    assert short(plan) == ["  remove the unused kernel C (7 bytes)"]


def test_a_shared_kernel_is_needed_under_its_name() -> None:
    found = facts("ab", staged="ca", marker="c")
    found = replace(found, staged=Menu((item("c", "d"), item("a"))))
    assert needed_artifacts(found) == {d(letter).hex for letter in "abd"}
    assert needed_artifacts(found, staged=False) == {d(letter).hex for letter in "ab"}
    assert live_deployments(found) == {d(letter) for letter in "abc"}
