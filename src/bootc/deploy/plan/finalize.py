"""Finalizing: the staged deployment becomes the default, at shutdown.

What is planned is merged from the ``/etc`` of this moment and the menus of this moment,
not from those of the staging: files changed, entries of others came, deployments were
pinned since. The exchange of the menus is the commit point. Whatever fails before it
leaves the old system the default, is written down beside the staged deployment, and is
told by the status of the next boot.

Whoever staged it, upstream's program or this one, has said so in the same way: the
announcement in ``/run``, written last, says that state and staged menu of the deployment it
names are complete. Nothing else is asked for. That promise is kept here too: while the staged
menu is rewritten nothing is announced, since upstream would exchange what there is of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bootc.boot.findings import FindingKind
from bootc.boot.menu_read import Item, Menu
from bootc.deploy.etc.merge import Conflict, Merge
from bootc.deploy.host.facts import Facts
from bootc.deploy.plan.stage import kept_items
from bootc.deploy.plan.steps import (
    DiscardStagedMenu,
    ExchangeMenu,
    Plan,
    ReplaceEtc,
    Withdraw,
    WriteStagedMenu,
)
from bootc.errors import Error
from bootc.formats import bls
from bootc.formats.digest import Digest
from bootc.printable import first_lines


class EtcConflict(Error):
    """Local changes in ``/etc`` and those of the new image exclude each other."""

    def __init__(self, conflicts: tuple[Conflict, ...]) -> None:
        reasons = "; ".join(first_lines([conflict.reason for conflict in conflicts]))
        super().__init__(
            f"Merge conflicts found in etc: {reasons}",
            hint="decide with bootc etc keep PATH or bootc etc take PATH",
        )
        self.conflicts = conflicts


class CannotFinalize(Error):
    """What is announced cannot become the default."""


def staged_for_finalizing(facts: Facts) -> Digest | None:
    """Return the deployment to finalize, or None when nothing is to be.

    Raises:
        CannotFinalize: one is announced that cannot be booted.
    """
    marker = facts.booted.staged
    if marker is None or marker.locked or marker.image_id == facts.booted.image_id:
        return None
    staged = facts.staged_id()
    if staged is None:
        if facts.active_item(marker.image_id) is not None:
            # Finalized by upstream's program, and then rolled back: both leave the announcement.
            return None
        raise CannotFinalize(
            f"deployment {marker.image_id} is staged, but has no state or no boot entry",
            hint="stage it again: bootc upgrade",
        )
    return staged


def require_resolved(merge: Merge) -> None:
    """Refuse a merge that has conflicts which nobody decided.

    Raises:
        EtcConflict: it has.
    """
    if merge.unresolved:
        raise EtcConflict(merge.unresolved)


def plan_finalize(facts: Facts, staged: Digest, merge: Merge) -> Plan:
    """Make the staged deployment the default.

    Raises:
        EtcConflict: the merge is not complete.
    """
    if facts.is_finalized(staged):
        # Interrupted after the exchange: doing it again would undo it.
        return Plan(after=(Withdraw(), DiscardStagedMenu()))
    require_resolved(merge)
    first = facts.staged_item(staged)
    assert first is not None, "what is finalized has an entry"
    order = (first, *kept_items(facts))
    replace, exchange = ReplaceEtc(staged, merge), ExchangeMenu(staged)
    if _is_menu_of(facts.staged, order):
        return Plan(before=(replace,), commit=exchange, after=(Withdraw(),))
    # Only then: while it is rewritten there is none, and nothing could be finalized.
    return Plan(before=(replace, Withdraw(), WriteStagedMenu(order)), commit=exchange)


def _is_menu_of(staged: Menu, order: Sequence[Item]) -> bool:
    """Tell whether a staged menu boots these and nothing else of ours.

    Upstream's program leaves entries of earlier stagings in the menus of unified kernel images,
    keeps whatever entry is the first where GRUB has those, and names entries so that GRUB may
    show another one first.
    """
    if [_said(item) for item in order] != [_said(item) for item in staged.items]:
        return False
    return all(
        finding.kind is FindingKind.FOREIGN or finding.subject in staged.foreign
        for finding in staged.findings
    )


def _said(item: Item) -> tuple[Digest, object]:
    """Return what an entry says but for its place in the menu."""
    entry = item.entry
    if isinstance(entry, bls.Entry):
        return item.deployment, dataclasses.replace(entry, sort_key=None)
    return item.deployment, entry
