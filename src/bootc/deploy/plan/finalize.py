"""Plans for finalizing: at shutdown the staged deployment becomes the default.

The plan uses ``/etc`` and the menus of this moment, not those of the staging: since then
files may have changed, foreign entries may have come, deployments may have been pinned. The
exchange of the menus is the commit point. A failure before it keeps the old system the
default; the command records the reason beside the staged deployment, and ``bootc status``
shows it after the next boot.

Upstream's program and this one announce a staged deployment in the same way: the file in
``/run`` is written last, and means that state and staged menu of the deployment that it names
are complete. Nothing else is required. The plan keeps this promise too: it withdraws the
announcement while it rewrites the staged menu, because upstream would exchange an incomplete
one.
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
    """Local changes in ``/etc`` conflict with those of the new image."""

    def __init__(self, conflicts: tuple[Conflict, ...]) -> None:
        reasons = "; ".join(first_lines([conflict.reason for conflict in conflicts]))
        super().__init__(
            f"Merge conflicts found in etc: {reasons}",
            hint="decide with bootc etc keep PATH or bootc etc take PATH",
        )
        self.conflicts = conflicts


class CannotFinalize(Error):
    """The announced deployment cannot become the default."""


def staged_for_finalizing(facts: Facts) -> Digest | None:
    """Return the deployment to finalize, or None if there is none.

    Raises:
        CannotFinalize: the announced deployment cannot be booted.
    """
    marker = facts.booted.staged
    if marker is None or marker.locked or marker.image_id == facts.booted.image_id:
        return None
    staged = facts.staged_id()
    if staged is None:
        if facts.active_item(marker.image_id) is not None:
            # Upstream's program finalized it and rolled it back; neither removes the announcement.
            return None
        raise CannotFinalize(
            f"deployment {marker.image_id} is staged, but has no state or no boot entry",
            hint="stage it again: bootc upgrade",
        )
    return staged


def require_resolved(merge: Merge) -> None:
    """Refuse a merge with unresolved conflicts.

    Raises:
        EtcConflict: the merge has unresolved conflicts.
    """
    if merge.unresolved:
        raise EtcConflict(merge.unresolved)


def plan_finalize(facts: Facts, staged: Digest, merge: Merge) -> Plan:
    """Make the staged deployment the default.

    Raises:
        EtcConflict: the merge is not complete.
    """
    if facts.is_finalized(staged):
        # An earlier run was interrupted after the exchange: a second one would undo the first.
        return Plan(after=(Withdraw(), DiscardStagedMenu()))
    require_resolved(merge)
    first = facts.staged_item(staged)
    assert first is not None, "a deployment to finalize has an entry"
    order = (first, *kept_items(facts))
    replace, exchange = ReplaceEtc(staged, merge), ExchangeMenu(staged)
    if _is_menu_of(facts.staged, order):
        return Plan(before=(replace,), commit=exchange, after=(Withdraw(),))
    # Only if it differs: an interrupted rewrite leaves no staged menu to finalize.
    return Plan(before=(replace, Withdraw(), WriteStagedMenu(order)), commit=exchange)


def _is_menu_of(staged: Menu, order: Sequence[Item]) -> bool:
    """Tell whether a staged menu boots these deployments and no other deployment of ours.

    Upstream's program leaves entries of earlier stagings in menus of unified kernel images. With
    GRUB it keeps the first entry of such a menu, whichever that is, and its names may make GRUB
    show another entry first.
    """
    if [_said(item) for item in order] != [_said(item) for item in staged.items]:
        return False
    return all(
        finding.kind is FindingKind.FOREIGN or finding.subject in staged.foreign
        for finding in staged.findings
    )


def _said(item: Item) -> tuple[Digest, object]:
    """Return the content of an entry, without its position in the menu."""
    entry = item.entry
    if isinstance(entry, bls.Entry):
        return item.deployment, dataclasses.replace(entry, sort_key=None)
    return item.deployment, entry
