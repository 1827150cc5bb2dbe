"""Whatever is done to a machine with ukiboot, and whenever the power fails: it boots.

The sequences are those of the other boot paths (``test_update_sequences.py``). There is no menu in
files that others could change or fill, and only two deployments fit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from test_update_sequences import CHANGES, UpdateMachine

from bootc.deploy import finalize
from support.bootdirs import UKIBOOT
from support.examples import of_machine
from support.machine import FakeMachine
from support.room import Volume
from support.roommodel import Level, Writes


class Roomy:
    """The physical root, which has room for everything."""

    volumes: tuple[Volume, ...] = ()
    has_end = False

    def __init__(self, machine: FakeMachine) -> None:
        self.machine = machine

    def fill(self, level: Level, more: int = 0, which: Collection[int] = ()) -> None:
        """Do nothing."""

    def lift(self) -> None:
        """Do nothing."""

    def notice(self) -> None:
        """Do nothing."""

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Do nothing."""
        yield

    def suffices(self, writes: Writes) -> bool:
        return True

    def surely_finalizes(self) -> bool:
        return True

    def check_tidy(self) -> None:
        """Fail if there is a payload that no partition needs any more."""
        announced = self.machine.announced()
        known = {shown.image_id for shown in self.machine.menu()}
        known |= {announced[0]} if announced else set()
        for path in self.machine.physical.glob("state/deploy/*/aboot"):
            assert path.parent.name in known


class SlotMachine(UpdateMachine):
    """One machine with two partitions, and what its user knows."""

    scheme = UKIBOOT
    room_type = Roomy

    def a_foreign_entry_appears(self, number: int, damaged: bool) -> None:
        """Do nothing: nobody else writes to the partitions."""

    def a_malformed_entry_appears(self, number: int) -> None:
        """Do nothing."""

    def others_leave_something(self, place: str) -> None:
        """Do nothing."""

    def somebody_fills_it_during_the_shutdown(self, at: int) -> None:
        """Do nothing."""

    def somebody_fills_it_meanwhile(self, *args: object) -> None:
        """Do nothing."""

    def somebody_fills_the_boot_partition(self, *args: object) -> None:
        """Do nothing."""

    def somebody_frees_the_boot_partition(self) -> None:
        """Do nothing."""

    def a_command_in_little_room(self, *args: object) -> None:
        """Do nothing."""

    def a_shutdown_in_little_room(self, *args: object) -> None:
        """Do nothing."""

    def _to_be_finalized(self) -> tuple[str, dict[str, str]] | None:
        staged = super()._to_be_finalized()
        if staged is not None and self.pinned - {staged[0], self.machine.booted_id}:
            return None  # A third deployment was pinned since.
        return staged

    @rule(at=CHANGES, cut=st.booleans())
    def interrupt_the_shutdown(self, at: int, cut: bool) -> None:
        # A rollback may have made the other partition the next one. It is overwritten now, and the
        # running one starts.
        running = self.machine.booted_id
        default, staged = self.machine.menu()[0].image_id, self._to_be_finalized()
        if staged is None:
            return
        if cut:
            self.machine.power_cut(at, finalize.finalize_staged)
        else:
            self.machine.killed(at, finalize.finalize_staged)
            self.machine.start()
        assert self.machine.booted_id in (default, running, staged[0])
        if self.machine.booted_id == staged[0]:
            assert not self._conflicts(staged)
            self.etc[staged[0]] = staged[1]


def test_update_sequences_with_ukiboot() -> None:
    run_state_machine_as_test(SlotMachine, settings=of_machine(30))
