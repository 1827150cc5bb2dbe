"""The menu of a machine with ukiboot: two partitions, and the control block of the loader.

The commit point is one write of the control block. Until then the loader starts the running
deployment. Committing a new deployment has these steps, each on the disk before the next:

1. bootc checks the payload of the staged deployment, and records the attempt.
2. The control block makes the loader start only the running slot.
3. bootc writes the payload to the other partition, reads it back and compares.
4. The control block makes the loader start the other slot, seven times at most, and then the
   running slot again. This is the commit point.

:meth:`SlotMenu.refresh` runs at each boot. It marks the slot of the running system as successful.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bootc.boot.menu_compose import CannotCompose, NewItem, compose_menu
from bootc.boot.menu_read import Item
from bootc.boot.menu_write import NotStaged
from bootc.boot.scheme import BootDirs
from bootc.boot.slot_partitions import Slots
from bootc.boot.slots import (
    ATTEMPTED,
    DEPLOYMENTS,
    ORDER,
    PENDING,
    ROLLBACK,
    SlotFacts,
    payload_dir,
    payload_path,
    read_chosen,
    read_order,
    read_pending,
    read_slots,
    seen_booted,
)
from bootc.boot.space import NoSpaceOnBoot
from bootc.errors import Error, doing, one_line
from bootc.formats.aboot import AbootRecordError, Chosen, Order, Pending
from bootc.formats.digest import Digest
from bootc.formats.ukiboot import MAX_PRIORITY, MAX_TRIES, ControlBlock, Name, Slot
from bootc.fs import atomic, rawdevice
from bootc.kernel import proc
from bootc.sizes import human_size

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

_log = logging.getLogger(__name__)


class UnknownSlot(Error):
    """The slot that the running system was started from is unknown."""


class PayloadChanged(Error):
    """The payload of the staged deployment is not the one that was staged."""


@dataclass(frozen=True, slots=True)
class SlotMenu:
    """The two slots of ukiboot. :class:`bootc.boot.menu.BootMenu` has the API."""

    dirs: BootDirs
    slots: Slots

    def write_staged(self, order: Sequence[NewItem | Item]) -> None:
        """Record the staged deployment, whose payload exists, or the order of the two slots."""
        compose_menu(self.dirs.scheme, order)
        facts = read_slots(self.slots)
        first = order[0].deployment
        self.discard_staged()
        with doing("Writing the next order of the partitions"):
            if _slot_of(facts, first) is not None:
                wanted = Order(tuple(item.deployment for item in order))
                self._write(ORDER, wanted.to_bytes())
                return
            self._require_kept(facts, order)
            path = payload_path(first)
            digest = hashlib.sha256()
            for chunk in self.dirs.binaries.read_chunks(path):
                digest.update(chunk)
            self._write(PENDING, Pending(first, digest.hexdigest()).to_bytes())

    def commit(self, first: Digest) -> bool:
        """Write the control block, and before it the partition if the deployment is new."""
        with doing("Changing what ukiboot starts"):
            facts = read_slots(self.slots)
            pending, order = read_pending(self.dirs), read_order(self.dirs)
            starts = _starts(facts, first)
            if order is not None and order.deployments[:1] == (first,):
                changed = self._reorder(facts, order)
                self._forget(ORDER)
                return changed
            if starts:
                return False
            if pending is None or pending.deployment != first:
                raise NotStaged(
                    f"deployment {first} is in neither partition, and is not staged",
                    hint="stage it again: bootc upgrade",
                )
            self._write_slot(facts, pending)
        return True

    def discard_staged(self) -> None:
        """Remove the records of the staged deployment or order."""
        with doing("Removing the records of the staged deployment"):
            for path in (PENDING, ATTEMPTED, ORDER):
                self._forget(path)

    def remove_entry(self, item: Item) -> None:
        """Make the loader skip the slots with this deployment."""
        with doing(f"Removing {item.name} from what ukiboot starts"):
            facts = read_slots(self.slots)
            block = facts.block
            for name, found in facts.items.items():
                if found.boots(item.deployment):
                    block = block.with_slot(name, Slot())
            if block != facts.block:
                self.slots.write_control(block)

    def remove_recounted(self, name: str) -> None:
        """Do nothing: the loader counts in the control block."""

    def refresh(self) -> None:
        """Mark the running slot as successful, repair the control block, and tidy the records.

        Raises:
            Error, OSError: the partitions cannot be read or written.
        """
        with doing("Comparing what ukiboot starts with what runs"):
            booted = self.slots.booted
            if booted is None:
                raise _unknown_slot()
            facts = read_slots(self.slots)
            block = _repaired(facts, booted)
            if facts.damage is not None or block != facts.block:
                self.slots.write_control(block)
            running = facts.items.get(booted)
            if running is not None:
                self._reconcile(running, booted, failed=block.slot(booted.other).has_failed)

    def copies_bytes(self, order: Sequence[NewItem | Item]) -> int:
        """Return 0: the partitions exist already."""
        return 0

    def check_kernel(self, sizes: Mapping[str, int]) -> None:
        """Check that the image fits into the partition that it will be written to."""
        if self.slots.booted is None:
            raise _unknown_slot()
        target = self.slots.booted.other
        check_fits(self.slots, target, sum(sizes.values()))

    def _require_kept(self, facts: SlotFacts, order: Sequence[NewItem | Item]) -> None:
        """Check that the other deployments are in the slot that is not written.

        Raises:
            CannotCompose, UnknownSlot: they are not.
        """
        if self.slots.booted is None:
            raise _unknown_slot()
        kept = facts.items.get(self.slots.booted)
        for item in order[1:]:
            if kept is None or not kept.boots(item.deployment):
                raise CannotCompose(
                    f"the partition of deployment {item.deployment} is needed for the new one",
                    hint=f"unpin it first: bootc unpin {item.deployment}",
                )

    def _write_slot(self, facts: SlotFacts, pending: Pending) -> None:
        booted = self.slots.booted
        if booted is None:
            raise _unknown_slot()
        target, path = booted.other, payload_path(pending.deployment)
        self._check_payload(path, pending.payload_sha256, target)
        self._write(ATTEMPTED, self._chosen(pending.deployment).to_bytes())
        self._forget(seen_booted(target))
        block = facts.block.prepared(target)
        self.slots.write_control(block)
        chunks = self.dirs.binaries.read_chunks(path)
        with doing(f"Writing {self.slots.path(target)}"):
            rawdevice.write_content(self.slots.path(target), chunks)
        self.slots.write_control(block.switched(target))

    def _check_payload(self, path: str, sha256: str, target: Name) -> None:
        digest, size_bytes = hashlib.sha256(), 0
        for chunk in self.dirs.binaries.read_chunks(path):
            digest.update(chunk)
            size_bytes += len(chunk)
        if digest.hexdigest() != sha256:
            raise PayloadChanged(
                f"{self.dirs.binaries.path}/{path} has changed since it was staged",
                hint="stage the deployment again: bootc upgrade",
            )
        check_fits(self.slots, target, size_bytes)

    def _reorder(self, facts: SlotFacts, order: Order) -> bool:
        """Start the slot of the first of these deployments, and the other one only if named."""
        first = order.deployments[0]
        name = _slot_of(facts, first)
        if name is None:
            raise NotStaged(
                f"deployment {first} is not in a partition any more",
                hint="stage it again: bootc upgrade",
            )
        block = facts.block
        if not _starts(facts, first):
            block = block.switched(name)
        other = facts.items.get(name.other)
        if other is not None and not any(other.boots(wanted) for wanted in order.deployments):
            block = block.with_slot(name.other, Slot())
        if block == facts.block:
            return False
        if name is self.slots.booted:
            self._forget(ROLLBACK)
        else:
            self._write(ROLLBACK, self._chosen(first).to_bytes())
        self.slots.write_control(block)
        return True

    def _reconcile(self, running: Item, booted: Name, *, failed: bool) -> None:
        """Record the running deployment, and remove the records that have been carried out.

        If the deployment in the other slot did not boot, it is not staged any more.
        """
        deployment = self._with_state(running)
        self._write(seen_booted(booted), deployment.hex.encode())
        attempted = read_chosen(self.dirs, ATTEMPTED)
        if attempted is not None and running.boots(attempted.deployment):
            # In this order: while the attempt is recorded, an interruption is noticed.
            if self._is_pending(running):
                self._forget(PENDING)
            self._remove_payload(attempted.deployment)
            self._forget(ATTEMPTED)
        elif attempted is not None and failed:
            self._forget(PENDING)
            self._forget(ATTEMPTED)
        rollback = read_chosen(self.dirs, ROLLBACK)
        if rollback is not None and rollback.boot_id != _boot_id():
            self._forget(ROLLBACK)

    def _is_pending(self, running: Item) -> bool:
        try:
            pending = read_pending(self.dirs)
        except AbootRecordError as exc:
            _log.warning("the record of the staged deployment is damaged: %s", one_line(exc))
            return True
        return pending is not None and running.boots(pending.deployment)

    def _with_state(self, item: Item) -> Digest:
        """Return the id of a deployment that its state directory has."""
        ids = (item.deployment, *item.also)
        menu = self.dirs.menu
        return next((i for i in ids if menu.exists(f"{DEPLOYMENTS}/{i.hex}")), item.deployment)

    def _remove_payload(self, deployment: Digest) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.dirs.binaries.remove_tree(payload_dir(deployment))

    def _chosen(self, deployment: Digest) -> Chosen:
        return Chosen(deployment, _boot_id())

    def _write(self, path: str, data: bytes) -> None:
        parent, _, name = path.rpartition("/")
        with self.dirs.menu.ensure_dir(parent) as directory:
            with contextlib.suppress(FileNotFoundError):
                if directory.read_bytes(name, len(data) + 1) == data:
                    return
            atomic.write_file(directory, name, data, durable=True)

    def _forget(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.dirs.menu.unlink(path)
            self.dirs.menu.sync()


def check_fits(slots: Slots, name: Name, size_bytes: int) -> None:
    """Check that a unified kernel image fits into a slot.

    Raises:
        NoSpaceOnBoot: it does not.
        OSError: the partition cannot be opened.
    """
    room = rawdevice.size_of(slots.path(name))
    if size_bytes > room:
        raise NoSpaceOnBoot(
            f"the unified kernel image has {human_size(size_bytes)}, and the partition "
            f"{name.label} only {human_size(room)}",
            hint="build a smaller image; an installation to a disk of at least 16 GiB makes "
            "partitions of 512 MiB",
        )


def _boot_id() -> str:
    return proc.read_table(_BOOT_ID)[0].decode("ascii", "replace").strip()


def _slot_of(facts: SlotFacts, deployment: Digest) -> Name | None:
    return next((name for name in facts.order if facts.items[name].boots(deployment)), None)


def _starts(facts: SlotFacts, deployment: Digest) -> bool:
    return any(facts.items[name].boots(deployment) for name in facts.order[:1])


def _repaired(facts: SlotFacts, booted: Name) -> ControlBlock:
    """Return the control block that the running system should have."""
    block, other = facts.block, booted.other
    if facts.damage is not None:
        # The running slot was first before the damage, and the other one may be good.
        block = ControlBlock(Slot(), Slot()).with_slot(booted, Slot(MAX_PRIORITY, 0, True))
        if other in facts.items:
            block = block.with_slot(other, Slot(MAX_PRIORITY - 1, MAX_TRIES))
        return block
    block = block.marked(booted)
    if other in facts.faults and not isinstance(facts.faults[other], OSError):
        # The loader would only fail to start it.
        block = block.with_slot(other, Slot())
    return block


def _unknown_slot() -> UnknownSlot:
    return UnknownSlot(
        "the kernel command line does not say from which slot ukiboot started this system",
        hint="restart the machine through ukiboot, which adds androidboot.slot_suffix=; no UKI may "
        "have this argument",
    )
