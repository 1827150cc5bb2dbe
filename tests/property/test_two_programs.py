"""One machine, updated by this program and by upstream's in any alternation.

What :mod:`test_update_sequences` demands of the machine holds whoever did what before, and
whoever was killed in the middle of it. Upstream's program is :mod:`support.upstream`, of any age
(:mod:`support.ages`) from that of the disk on.

Laws that upstream breaks by itself are asked of this program only:

- upstream removes all that it does not know in ``state/deploy`` and ``images``: nobody leaves
  anything there;
- upstream fails on every entry that it does not know, and loses others' entries with an
  exchange: there are no entries of others here, and no malformed ones;
- upstream knows no pins, and drops what is pinned: nothing is pinned here;
- upstream names entries so that GRUB may go on showing the old one first: after its
  shutdown and its rollback either of the two boots;
- upstream's finalizer may not run twice, and promotes what an earlier staging left
  (:class:`support.upstream.Avoided`): then this program's runs instead;
- upstream refuses what it has staged by the same tree, and forgets announcements.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from test_update_sequences import CHANGES, POLICIES, TAGS, UpdateMachine

from bootc.boot.scheme import Scheme
from bootc.deploy import finalize
from bootc.deploy.etc.merge import ConflictPolicy
from support import osimages, upstreamdisk
from support.ages import AGES, OLDEST, V1_16_9, later
from support.bootdirs import SCHEMES, scheme_name
from support.examples import of_machine
from support.osimages import Channel
from support.upstream import Avoided, Killed, Upstream, UpstreamError, merge_etc

#: A deployment for a command to be about; of this program's those without a pin.
WHO = st.sampled_from(["booted", "staged", "rollback", "last", "missing"])
UNPINNED = st.integers(0, 11)
#: More steps than upstream's longest command has, now and then.
STEPS = st.integers(1, 25)
NEVER = st.just(0)
#: The ages of disks. The first program to write to one of the oldest age chooses its format.
INSTALLERS = tuple(age for age in AGES if age is not OLDEST)
#: Whether upstream's program does it, and not this one.
UPSTREAM = st.booleans()


class TwoPrograms(UpdateMachine):
    """One machine, two programs, and what its user knows."""

    # See above: what upstream cannot live with does not happen here.
    others_leave_something = None
    a_foreign_entry_appears = None
    a_malformed_entry_appears = None
    somebody_fills_the_boot_partition = None
    somebody_frees_the_boot_partition = None
    somebody_fills_it_meanwhile = None
    somebody_fills_it_during_the_shutdown = None
    a_command_in_little_room = None
    a_shutdown_in_little_room = None
    pin = None
    foreign_entries_are_there = None

    @initialize(
        first=TAGS,
        other=TAGS,
        updates=st.lists(TAGS, max_size=2),
        age=st.data(),
    )
    def install(self, first: str, other: str, updates: list[str], age: st.DataObject) -> None:
        """Install with either program; that of upstream is of any age, and updated later."""
        self.installer = age.draw(st.sampled_from([None, *INSTALLERS]))
        self.age = self.installer or V1_16_9
        UpdateMachine.install(self, first, other, [])  # type: ignore[arg-type]
        self.upstream = Upstream(self.machine, age.draw(st.sampled_from(later(self.age))))
        for tag in updates:
            self.update(tag)

    def install_first(self) -> None:
        if self.installer is None:
            UpdateMachine.install_first(self)
        else:
            upstreamdisk.install(self.machine, self.channels[0], self.installer)

    # -- this program, without pins

    @rule(locked=st.booleans(), policy=POLICIES, which=st.integers(0, 1))
    def switch(self, locked: bool, policy: ConflictPolicy, which: int) -> None:
        self.run(self.verbs.switch(locked, policy, which, False))

    @rule(at=CHANGES, choice=UNPINNED, who=WHO, policy=POLICIES, cut=st.booleans())
    def interrupt_a_command(
        self, at: int, choice: int, who: str, policy: ConflictPolicy, cut: bool
    ) -> None:
        UpdateMachine.interrupt_a_command(self, at, choice, who, policy, cut)  # type: ignore[arg-type]

    @rule(at=NEVER | CHANGES)
    def finalize_by_hand(self, at: int) -> None:
        """Do what the shutdown does, with the machine staying up; perhaps only a part of it."""
        default, expected = self.machine.menu()[0].image_id, self._to_be_finalized()
        if at:
            self.machine.killed(at, finalize.finalize_staged)
        else:
            self._attempt(finalize.finalize_staged)
        self._is_finalized(default, expected)

    def _is_finalized(
        self, default: str | None, expected: tuple[str, dict[str, str]] | None
    ) -> None:
        """Fail unless a finalizer has done all that it should, or nothing that can be seen.

        The default is what stays it in the latter case, None if the loader may choose another.
        """
        shown = [entry.image_id for entry in self.machine.menu()]
        if expected is None or expected[0] not in shown:
            assert default in (None, shown[0])
            return
        self.etc[expected[0]] = expected[1]

    # -- upstream's

    @rule(age=st.data())
    def upstream_is_updated(self, age: st.DataObject) -> None:
        self.upstream.age = age.draw(st.sampled_from(later(self.upstream.age)))

    @rule(tag=TAGS, locked=st.booleans(), at=NEVER | STEPS, cut=st.booleans())
    def upstream_upgrades(self, tag: str, locked: bool, at: int, cut: bool) -> None:
        channel = self.verbs.wanted()
        channel.offer(osimages.ALL[tag])
        done = self._upstream(lambda: self.upstream.upgrade(channel, locked=locked), at, cut)
        if done:
            self._is_staged(channel, locked)

    @rule(tag=TAGS, which=st.integers(0, 1), at=NEVER | STEPS, cut=st.booleans())
    def upstream_switches(self, tag: str, which: int, at: int, cut: bool) -> None:
        channel = self.channels[which]
        channel.offer(osimages.ALL[tag])
        done = self._upstream(lambda: self.upstream.upgrade(channel, switches=True), at, cut)
        if done:
            self._is_staged(channel, False)

    def _is_staged(self, channel: Channel, locked: bool) -> None:
        """Fail unless status shows what upstream has staged, and the shutdown will see to it."""
        assert self.machine.announced() == (channel.image_id, locked)
        staged = self.machine.status()["status"]["staged"]
        assert staged["composefs"]["verity"] == channel.image_id
        assert staged["downloadOnly"] is locked
        assert staged["image"]["image"]["image"] == str(channel.path)
        assert self.verbs.wanted() is channel

    @rule(at=NEVER | STEPS, cut=st.booleans())
    def upstream_rolls_back(self, at: int, cut: bool) -> None:
        before = [shown.image_id for shown in self.machine.menu()]
        if self._upstream(self.upstream.rollback, at, cut) is not False and not self._by_version:
            assert [shown.image_id for shown in self.machine.menu()] == before[::-1]

    @rule(who=WHO, at=NEVER | STEPS, cut=st.booleans())
    def upstream_deletes(self, who: str, at: int, cut: bool) -> None:
        self._upstream(lambda: self.upstream.delete(self.verbs.called(who)), at, cut)

    @rule(prune=st.booleans(), at=NEVER | STEPS, cut=st.booleans())
    def upstream_collects(self, prune: bool, at: int, cut: bool) -> None:
        self._upstream(lambda: self.upstream.collect(prune=prune), at, cut)

    @rule(at=NEVER | STEPS)
    def upstream_finalizes_by_hand(self, at: int) -> None:
        default, expected = self.machine.menu()[0].image_id, self._expected_of_upstream()
        if self._may_end_without_what_runs():
            return
        self._upstream(self.upstream.finalize, at, False)
        self._is_finalized(None if self._by_version else default, expected)

    @rule(at=NEVER | STEPS)
    def upstream_shuts_down(self, at: int) -> None:
        if not self.machine.finalizer_runs:
            self.machine.start()
            return
        default, expected = self.machine.menu()[0].image_id, self._expected_of_upstream()
        try:
            self.upstream.killed_at = at
            finalized = self.upstream.finalize()
        except Avoided:
            self.reboot()
            return
        except (UpstreamError, Killed):
            finalized = None
        finally:
            self.upstream.killed_at = 0
        shown = [entry.image_id for entry in self.machine.menu()]
        self.machine.start()
        if expected is not None and expected[0] in shown:
            self.etc[expected[0]] = expected[1]
            assert self._by_version or self.machine.booted_id == expected[0]
            return
        assert finalized is None
        assert self.machine.booted_id == default

    # -- both, on one day

    @rule(tag=TAGS, stages=UPSTREAM, shuts_down=UPSTREAM)
    def update_together(self, tag: str, stages: bool, shuts_down: bool) -> None:
        self._stage_by(stages, tag)
        self._shut_down_by(shuts_down)

    @rule(tag=TAGS, stages=UPSTREAM, begins=UPSTREAM, at=STEPS, ends=UPSTREAM)
    def finalize_together(self, tag: str, stages: bool, begins: bool, at: int, ends: bool) -> None:
        """Kill one finalizer, and let the shutdown run the other."""
        self._stage_by(stages, tag)
        if begins:
            self.upstream_finalizes_by_hand(at)
        else:
            self.finalize_by_hand(at)
        self._shut_down_by(ends)

    @rule(first=TAGS, first_by=UPSTREAM, at=STEPS, second=TAGS, second_by=UPSTREAM, ends=UPSTREAM)
    def stage_together(
        self, first: str, first_by: bool, at: int, second: str, second_by: bool, ends: bool
    ) -> None:
        """Kill one that stages, and let the other one stage in its place."""
        if first_by:
            self.upstream_upgrades(first, False, at, False)
        else:
            self.verbs.wanted().offer(osimages.ALL[first])
            self.interrupt_a_command(3 * at, 0, "booted", ConflictPolicy.FAIL, False)
        self._stage_by(second_by, second)
        self._shut_down_by(ends)

    def _stage_by(self, upstream: bool, tag: str) -> None:
        if upstream:
            self.upstream_upgrades(tag, False, 0, False)
        else:
            self.upgrade(tag, False, ConflictPolicy.FAIL)

    def _shut_down_by(self, upstream: bool) -> None:
        if upstream:
            self.upstream_shuts_down(0)
        else:
            self.reboot()

    def _upstream(self, command: Callable[[], object], at: int, cut: bool) -> bool:
        """Run one of upstream's commands, and perhaps cut the power in the middle or after it.

        Tell whether it came to its end and did something, and the machine is still up.
        """
        self.upstream.killed_at = at
        try:
            done = command() is not False
        except (UpstreamError, Avoided, Killed):
            done = False
        finally:
            self.upstream.killed_at = 0
        if at and cut:
            self.machine.start()
            return False
        return done

    @property
    def _by_version(self) -> bool:
        """Whether upstream's names of entries let the loader choose by their version."""
        return not self.scheme.menu_is_file and self.scheme.bootloader.value != "systemd"

    def _may_end_without_what_runs(self) -> bool:
        """Tell whether upstream's exchange would leave a menu that lacks the booted deployment."""
        return self.machine.booted_id not in {s.image_id for s in self.machine.staged_menu()}

    # -- what a user knows

    def _expected_of_upstream(self) -> tuple[str, dict[str, str]] | None:
        """Return what upstream's finalizer makes the default, and its ``/etc``."""
        announced = self.machine.announced()
        if announced is None or announced[1] or announced[0] == self.machine.booted_id:
            return None
        booted, images = self.machine.booted_id, self.images
        try:
            etc = merge_etc(
                images.image(booted).etc, self.etc[booted], images.image(announced[0]).etc
            )
        except UpstreamError:
            return None
        return announced[0], etc

    def _to_be_finalized(self) -> tuple[str, dict[str, str]] | None:
        """Return what this program's finalizer makes the default, and the ``/etc`` it gets."""
        found = UpdateMachine._to_be_finalized(self)
        if found is None:
            return None
        first = self.machine.menu()[0].image_id
        staged = {shown.image_id for shown in self.machine.staged_menu()}
        if found[0] in staged:
            return found
        # Either program has exchanged the menus already, or upstream has dropped what it
        # announces still.
        return (found[0], self.etc[found[0]]) if first == found[0] else None

    # -- what always holds

    @invariant()
    def what_is_staged_is_whole(self) -> None:
        staged = self.machine.status()["status"]["staged"]
        if staged is None:
            return
        image_id = staged["composefs"]["verity"]
        shown = [*self.machine.staged_menu(), *self.machine.menu()]
        self.machine.check_bootable(next(entry for entry in shown if entry.image_id == image_id))

    @invariant()
    def both_programs_say_the_same(self) -> None:
        status, slots = self.machine.status()["status"], self.upstream.slots()
        found = {
            slot: status[slot] and status[slot]["composefs"]["verity"]
            for slot in ("booted", "staged", "rollback")
        }
        assert found["booted"] == slots.booted
        if found["staged"] is not None or slots.staged is None:
            assert (found["staged"], found["rollback"]) == (slots.staged, slots.rollback)
        else:
            # It is announced still, and will not be more than it is: upstream forgot to withdraw.
            assert slots.staged in {shown.image_id for shown in self.machine.menu()}


@pytest.mark.parametrize("scheme", SCHEMES, ids=scheme_name)
def test_two_programs(scheme: Scheme) -> None:
    machine = type("Machine", (TwoPrograms,), {"scheme": scheme})
    run_state_machine_as_test(machine, settings=of_machine(20))
