"""The menu of ukiboot: what it starts from its two partitions, and in which order.

The control block (:mod:`bootc.formats.ukiboot`) has the order. The unified kernel image in a
partition names its deployment, so no other record is needed. The deployments that can boot are
those in slots that the loader would start.

The staged deployment is in ``state/boot/aboot/pending``. Its unified kernel image, the payload, is
``state/deploy/<id>/aboot/aboot.img``, until a shutdown writes it to a partition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from bootc.boot.findings import Finding, FindingKind
from bootc.boot.menu_read import Item, Menu
from bootc.boot.scheme import BootDirs
from bootc.boot.slot_partitions import Slots
from bootc.errors import Error, doing, one_line
from bootc.formats import bls
from bootc.formats.aboot import AbootRecordError, Chosen, Order, Pending
from bootc.formats.digest import Digest
from bootc.formats.pe import Uki
from bootc.formats.ukiboot import (
    CONTROL_NAME,
    ControlBlock,
    ControlBlockError,
    Name,
    effective,
    parse_control_block,
)

RECORDS = "state/boot/aboot"
PENDING = f"{RECORDS}/pending"
ATTEMPTED = f"{RECORDS}/attempted"
ROLLBACK = f"{RECORDS}/rollback"
#: The next order of deployments that are in the partitions already.
ORDER = f"{RECORDS}/order"
DEPLOYMENTS = "state/deploy"
PAYLOAD_DIR = "aboot"
_PAYLOAD = "aboot.img"
_SUFFIX = ".efi"
_MAX_RECORD_BYTES = 1 << 12

_T = TypeVar("_T")

_REPAIR = "the next boot, or systemctl restart bootc-refresh-boot-menu, repairs it"


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """What ukiboot will do.

    Attributes:
        block: The control block, as the loader takes it.
        damage: Why the bytes on the disk are no control block; None if they are.
        items: The deployments of the slots that the loader would start.
        faults: Why such a slot starts no deployment.
    """

    block: ControlBlock
    damage: str | None
    items: dict[Name, Item]
    faults: dict[Name, Exception]

    @property
    def order(self) -> list[Name]:
        """The slots that start a deployment, in the order of the loader."""
        # Of equal priorities A: sorting is stable.
        return sorted(
            (name for name in Name if name in self.items),
            key=lambda name: -self.block.slot(name).priority,
        )


def read_slots(slots: Slots) -> SlotFacts:
    """Read the control block, and the deployments in the slots.

    Raises:
        OSError: the control block cannot be read.
    """
    data, damage = slots.read_control(), None
    try:
        parse_control_block(data)
    except ControlBlockError as exc:
        damage = exc.message
    block = effective(data)
    items: dict[Name, Item] = {}
    faults: dict[Name, Exception] = {}
    for name in Name:
        if block.slot(name).is_valid:
            try:
                items[name] = _read_item(slots, name)
            except (Error, OSError) as exc:
                faults[name] = exc
    return SlotFacts(block, damage, items, faults)


def read_live(slots: Slots) -> Menu:
    """Read the live menu. Problems become findings, not exceptions."""
    try:
        facts = read_slots(slots)
    except OSError as exc:
        unreadable = Finding(FindingKind.UNREADABLE, CONTROL_NAME, one_line(exc))
        return Menu(findings=(unreadable,))
    found: dict[Digest, Item] = {}
    findings = []
    for name in facts.order:
        item = facts.items[name]
        found.setdefault(item.deployment, item)
    repairs = []
    if facts.damage is not None:
        text = f"{facts.damage}, so the loader starts slot a first; {_REPAIR}"
        repairs.append(Finding(FindingKind.MISSING, CONTROL_NAME, text))
    for name, fault in facts.faults.items():
        if isinstance(fault, OSError):
            findings.append(Finding(FindingKind.UNREADABLE, name.label, one_line(fault)))
        elif facts.damage is None or name is facts.block.active:
            text = (
                "the loader would start this slot, but it starts no deployment: "
                f"{one_line(fault)}; bootc upgrade replaces it"
            )
            repairs.append(Finding(FindingKind.MISSING, name.label, text))
    findings += [_failed(name) for name in Name if facts.block.slot(name).has_failed]
    return Menu(
        items=tuple(found.values()),
        missing=tuple(finding.subject for finding in repairs),
        findings=(*findings, *repairs),
    )


def read_staged(dirs: BootDirs, slots: Slots) -> Menu:
    """Read the staged menu: a staged deployment, or another order. Problems become findings."""
    findings: list[Finding] = []
    try:
        facts = read_slots(slots)
    except OSError:
        return Menu()  # The live menu has the finding.
    live = {item.deployment: item for item in (facts.items[name] for name in facts.order)}
    try:
        pending, order = read_pending(dirs), read_order(dirs)
        if pending is not None and not _boots_first(facts, pending.deployment):
            item = _read_payload(dirs, pending.deployment)
            kept = facts.items.get(slots.booted) if slots.booted is not None else None
            items = [item] if kept is None or kept.boots(item.deployment) else [item, kept]
            return Menu(items=tuple(items))
        if order is not None:
            known = [live[wanted] for wanted in order.deployments if wanted in live]
            return Menu(items=tuple(known))
    except (Error, OSError) as exc:
        findings.append(Finding(FindingKind.MALFORMED, PENDING, one_line(exc)))
    return Menu(findings=tuple(findings))


def read_pending(dirs: BootDirs) -> Pending | None:
    """Return the record of the staged deployment, if there is one.

    Raises:
        AbootRecordError, OSError: it cannot be read.
    """
    return _read_record(dirs, PENDING, Pending.parse)


def read_order(dirs: BootDirs) -> Order | None:
    """Return the record of the next order, if there is one.

    Raises:
        AbootRecordError, OSError: it cannot be read.
    """
    return _read_record(dirs, ORDER, Order.parse)


def read_chosen(dirs: BootDirs, path: str) -> Chosen | None:
    """Return the record :data:`ATTEMPTED` or :data:`ROLLBACK`, if there is one it can read.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return _read_record(dirs, path, Chosen.parse)
    except AbootRecordError:
        return None


def seen_booted(name: Name) -> str:
    """Return the path of the record of the deployment that was seen booted from a slot."""
    return f"{RECORDS}/slots/{name.value}"


def payload_dir(deployment: Digest) -> str:
    """Return the directory of a payload, below the physical root."""
    return f"{DEPLOYMENTS}/{deployment.hex}/{PAYLOAD_DIR}"


def payload_path(deployment: Digest) -> str:
    """Return the path of a payload, below the physical root."""
    return f"{payload_dir(deployment)}/{_PAYLOAD}"


def program_path(slots: Slots, path: str) -> str | None:
    """Return the node of the slot that an entry of this menu starts, or None for a payload."""
    name = path.strip("/").removesuffix(_SUFFIX)
    return next((slots.path(slot) for slot in Name if slot.label == name), None)


def _read_item(slots: Slots, name: Name) -> Item:
    with open(slots.path(name), "rb") as file:
        return _item(Uki.read(file), name.label, f"/{name.label}{_SUFFIX}")


def _read_payload(dirs: BootDirs, deployment: Digest) -> Item:
    path = payload_path(deployment)
    with open(dirs.binaries.open_regular(path), "rb") as file:
        item = _item(Uki.read(file), path, f"/{path}")
    ids = (item.deployment, *item.also)
    also = tuple(image for image in ids if image != deployment)
    return replace(item, deployment=deployment, artifact=deployment.hex, also=also)


def _item(uki: Uki, name: str, path: str) -> Item:
    ids = tuple(map(Digest.from_hex, uki.composefs_images().ids))
    release = uki.os_release()
    label = release.boot_label or ids[0].hex
    entry = bls.Entry(title=label, version=release.version or ids[0].hex, efi=path)
    return Item(name, ids[0], ids[0].hex, entry, ids[1:])


def _boots_first(facts: SlotFacts, deployment: Digest) -> bool:
    return any(facts.items[name].boots(deployment) for name in facts.order[:1])


def _failed(name: Name) -> Finding:
    text = (
        "its deployment did not boot in any attempt, so the loader starts the other slot; "
        "bootc upgrade replaces it"
    )
    return Finding(FindingKind.FAILED, name.label, text)


def _read_record(dirs: BootDirs, path: str, parse: Callable[[bytes], _T]) -> _T | None:
    try:
        with doing(f"Reading {dirs.menu.path}/{path}"):
            return parse(dirs.menu.read_bytes(path, _MAX_RECORD_BYTES))
    except (FileNotFoundError, NotADirectoryError):
        return None
