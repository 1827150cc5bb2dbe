"""Whatever is done to a machine, and whenever the power fails: it boots, says what it is,
and keeps what it was told to keep.

The commands are the real ones, and what they should come to is told by a model that knows
of images, menus and ``/etc`` only what a user knows. Every command is first run dry, then
in earnest, and then once more.
"""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from bootc.boot.scheme import Scheme
from bootc.boot.space import NoSpaceOnBoot
from bootc.deploy import execute, finalize
from bootc.deploy.check import check_for_update
from bootc.deploy.etc.merge import ConflictPolicy
from bootc.deploy.plan.finalize import EtcConflict
from bootc.deploy.plan.steps import (
    CollectObjects,
    DiscardStagedMenu,
    RemoveArtifact,
    RemoveLeftover,
    RemoveState,
    RemoveTag,
    SetTag,
    Step,
)
from bootc.errors import Error
from bootc.formats.origin import BootType
from support import osimages
from support.ages import V1_16_9, Age
from support.bootdirs import GRUB_GENERATED, SCHEMES, SYSTEMD, scheme_name
from support.examples import of_machine
from support.failing import meanwhile
from support.foreign import PLACES, plant
from support.machine import Command, FakeMachine, Journal, view_of
from support.osimages import Channel, Images
from support.room import limited
from support.roommodel import Level, Room, Writes
from support.stored import IN_MEMORY
from support.verbs import CHOICES, Verb, Verbs

#: What a clean-up after a command consists of.
CLEANING = (
    *(DiscardStagedMenu, RemoveArtifact, RemoveState, RemoveLeftover),
    *(SetTag, RemoveTag, CollectObjects),
)

#: What a plan has more where room is made.
MAKING_ROOM = (
    "remove the unused kernel ",
    "remove the staged menu",
    "withdraw the announcement of the staged deployment",
)

TAGS = st.sampled_from(list(osimages.ALL))
#: More changes than the longest command makes, now and then.
CHANGES = st.integers(1, 130)
CHOICE = st.integers(0, CHOICES - 1)
#: Those that write to boot partitions.
WRITING = st.integers(0, 8)
#: Which deployment a command is about.
WHO = st.sampled_from(["booted", "staged", "rollback", "pinned", "last", "missing"])
LEVELS = st.sampled_from(Level)
FEW = st.integers(0, 3)
#: Of two boot partitions that of GRUB's menu, the ESP, or both; else the one there is.
WHICH = st.sampled_from([(0,), (1,), (0, 1)])
_IMAGES: dict[tuple[BootType, Age, bool], Images] = {}
_KEPT: list[tempfile.TemporaryDirectory[str]] = []
POLICIES = st.sampled_from([ConflictPolicy.FAIL, *ConflictPolicy])


class UpdateMachine(RuleBasedStateMachine):
    """One machine, and what its user knows."""

    scheme: Scheme
    age = V1_16_9
    #: The images have unified kernel images, and the machine boots them in parts.
    in_parts = False
    #: The model of the boot partitions.
    room_type: Callable[[FakeMachine], Room] = Room

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()

    @initialize(first=TAGS, other=TAGS, updates=st.lists(TAGS, min_size=1, max_size=3))
    def install(self, first: str, other: str, updates: list[str]) -> None:
        root = Path(self.stack.enter_context(tempfile.TemporaryDirectory(dir=IN_MEMORY)))
        self.images = images_of(self.scheme, self.age, in_parts=self.in_parts)
        self.channels = [
            Channel(root / name, self.images, osimages.ALL[tag])
            for name, tag in (("os", first), ("other", other))
        ]
        (root / "machine").mkdir()
        self.machine = FakeMachine(root / "machine", self.scheme, self.images)
        self.install_first()
        self.verbs = Verbs(self.machine, self.channels)
        self.room = self.room_type(self.machine)
        self.stack.enter_context(limited(*self.room.volumes))
        #: The ``/etc`` of every deployment in the menu.
        self.etc = {self.machine.booted_id: dict(osimages.ALL[first].etc)}
        self.pinned: set[str] = set()
        self.foreign: dict[str, bytes] = {}
        #: What others left elsewhere, by its path.
        self.planted: dict[str, str] = {}
        for tag in updates:
            self.update(tag)

    def install_first(self) -> None:
        """Install what the first channel offers."""
        self.machine.install(self.channels[0])

    # -- what happens around the machine

    @rule(tag=TAGS, which=st.integers(0, 1))
    def a_version_appears(self, tag: str, which: int) -> None:
        self.channels[which].offer(osimages.ALL[tag])

    @rule(path=st.sampled_from(["a", "b", "n", "local"]), text=st.sampled_from(["", "mine", "2"]))
    def edit(self, path: str, text: str) -> None:
        self._edit(path, text)

    @rule(path=st.sampled_from(["a", "b", "n", "local"]))
    def remove_file(self, path: str) -> None:
        (self.machine.state(self.machine.booted_id) / "etc" / path).unlink(missing_ok=True)
        self.etc[self.machine.booted_id].pop(path, None)

    @rule(text=st.sampled_from(["mine", "3"]))
    def edit_what_may_conflict(self, text: str) -> None:
        turned = "x/in" in self.etc[self.machine.booted_id]
        self._edit("x/in" if turned else "x", text)

    def _edit(self, path: str, text: str) -> None:
        (self.machine.state(self.machine.booted_id) / "etc" / path).write_text(text)
        self.etc[self.machine.booted_id][path] = text

    @rule(number=st.integers(0, 3), damaged=st.booleans())
    def a_foreign_entry_appears(self, number: int, damaged: bool) -> None:
        if self.scheme.menu_is_file:
            title = f"foreign {number}"
            text = f'menuentry "{title}" {{\nchainloader /EFI/other/{number}.efi\n}}\n'
            current = self.machine.entries.read_text()
            if title not in current:
                self.machine.entries.write_text(current + text)
            self.foreign[title] = b""
            return
        # Sorted before all of ours by a loader that asks for the name only.
        name = f"{'zz' if number % 2 else 'aa'}-{number}.conf"
        data = f"title foreign\nversion {number}\nefi /EFI/other/{number}.efi\n".encode()
        self.foreign[name] = b"\xff" if damaged else data
        (self.machine.entries / name).write_bytes(self.foreign[name])

    @rule(number=st.integers(0, 1))
    def a_malformed_entry_appears(self, number: int) -> None:
        if not self.scheme.menu_is_file:
            name = f"bootc_broken-{number}-1.conf"
            (self.machine.entries / name).write_bytes(b"linux \xff" if number else b"")

    @rule(place=st.sampled_from(PLACES))
    def others_leave_something(self, place: str) -> None:
        before = self.machine.contents(repository=True)
        plant(self.machine, place)
        after = self.machine.contents(repository=True)
        self.planted |= {path: text for path, text in after.items() if path not in before}

    @rule(level=LEVELS, more=FEW, which=WHICH)
    def somebody_fills_the_boot_partition(
        self, level: Level, more: int, which: tuple[int, ...]
    ) -> None:
        self.room.fill(level, more, which)

    @rule()
    def somebody_frees_the_boot_partition(self) -> None:
        self.room.lift()

    # -- commands

    @rule(tag=TAGS, locked=st.booleans(), policy=POLICIES)
    def upgrade(self, tag: str, locked: bool, policy: ConflictPolicy) -> None:
        self.verbs.wanted().offer(osimages.ALL[tag])
        self.run(self.verbs.upgrade(locked, policy))

    @rule(locked=st.booleans(), policy=POLICIES, which=st.integers(0, 1), retain=st.booleans())
    def switch(self, locked: bool, policy: ConflictPolicy, which: int, retain: bool) -> None:
        self.run(self.verbs.switch(locked, policy, which, retain))

    @rule()
    def rollback(self) -> None:
        self.run(self.verbs.other(0, "booted"))

    @rule(who=WHO)
    def delete(self, who: str) -> None:
        self.run(self.verbs.other(2, who))

    @rule(who=WHO, pinned=st.booleans())
    def pin(self, who: str, pinned: bool) -> None:
        self.run(self.verbs.other(8 if pinned else 7, who))

    @rule(choice=st.sampled_from([4, 5, 6]))
    def another_command(self, choice: int) -> None:
        self.run(self.verbs.other(choice, "booted"))

    @rule(
        staged=st.none() | TAGS,
        level=LEVELS,
        more=FEW,
        which=WHICH,
        tag=TAGS,
        choice=WRITING,
        who=WHO,
        again=st.booleans(),
    )
    def a_command_in_little_room(
        self,
        staged: str | None,
        level: Level,
        more: int,
        which: tuple[int, ...],
        tag: str,
        choice: int,
        who: str,
        again: bool,
    ) -> None:
        if staged is not None:
            self._stage(staged)
        self.room.fill(level, more, which)
        self.verbs.wanted().offer(osimages.ALL[tag])
        verb = self.verbs.any(choice, who, ConflictPolicy.FAIL)
        if isinstance(self.run(verb), NoSpaceOnBoot) and again:
            self.room.lift()
            assert self.run(verb) is None

    @rule()
    def check(self) -> None:
        before = self.machine.contents(repository=True)
        self.machine.command(lambda system, journal: check_for_update(system))
        after = self.machine.contents(repository=True)
        changed = {
            path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
        }
        assert changed <= {"run/composefs/cached-update.json"}

    # -- the end of a day

    @rule(tag=TAGS)
    def update(self, tag: str) -> None:
        self.verbs.wanted().offer(osimages.ALL[tag])
        self.run(self.verbs.upgrade(False, ConflictPolicy.FAIL))
        self._reboot()

    @rule()
    def reboot(self) -> None:
        self._reboot()

    @rule(tag=TAGS, number=st.none() | st.integers(0, 3), pin=st.booleans(), level=LEVELS, more=FEW)
    def a_shutdown_in_little_room(
        self, tag: str, number: int | None, pin: bool, level: Level, more: int
    ) -> None:
        self._stage(tag)
        if number is not None:
            self.a_foreign_entry_appears(number, False)
        if pin:
            self.pin("rollback", True)
        self.room.fill(level, more)
        self._reboot()

    def _stage(self, tag: str) -> None:
        self.room.lift()
        self.verbs.wanted().offer(osimages.ALL[tag])
        self.run(self.verbs.upgrade(False, ConflictPolicy.FAIL))

    def _reboot(self) -> None:
        default = self.machine.menu()[0].image_id
        staged = self._to_be_finalized()
        conflict = staged is not None and self._conflicts(staged)
        sure = staged is None or conflict or self.room.surely_finalizes()
        failure = self.machine.reboot()
        if not sure and failure is not None:
            assert isinstance(failure, NoSpaceOnBoot), failure
            assert self.machine.booted_id == default
        elif staged is None or conflict:
            assert isinstance(failure, EtcConflict) is conflict, failure
            assert self.machine.booted_id == default
        else:
            assert failure is None
            assert self.machine.booted_id == staged[0]
            self.etc[staged[0]] = staged[1]
        if staged is not None and failure is not None:
            assert self._failures_of(staged[0])

    def _failures_of(self, image_id: str) -> list[str]:
        """Return what status says of why a deployment is not the default."""
        findings = self.machine.status()["status"].get("findings", [])
        failed = [finding for finding in findings if finding["kind"] == "failed"]
        return [finding["text"] for finding in failed if image_id in finding["subject"]]

    @rule(at=CHANGES, choice=CHOICE, who=WHO, policy=POLICIES, cut=st.booleans())
    def interrupt_a_command(
        self, at: int, choice: int, who: str, policy: ConflictPolicy, cut: bool
    ) -> None:
        verb = self.verbs.any(choice, who, policy)
        before = self.machine.menu()[0].image_id
        command: Command = lambda system, journal: verb.run(system, journal, False)  # noqa: E731
        if cut:
            self.machine.power_cut(at, command)
            assert self.machine.booted_id in (before, *self.etc)
        else:
            self.machine.killed(at, command)
        self.pinned = self.machine.pinned()

    @rule(at=CHANGES, choice=CHOICE, who=WHO, policy=POLICIES)
    def somebody_fills_it_meanwhile(
        self, at: int, choice: int, who: str, policy: ConflictPolicy
    ) -> None:
        verb = self.verbs.any(choice, who, policy)
        before = [shown.image_id for shown in self.machine.menu()]
        with meanwhile(at, lambda: self.room.fill(Level.NOTHING)), suppressed_when_full() as failed:
            self._attempt(lambda system, journal: verb.run(system, journal, False))
        if failed:
            assert [shown.image_id for shown in self.machine.menu()] == before
        self.pinned = self.machine.pinned()

    @rule(at=CHANGES)
    def somebody_fills_it_during_the_shutdown(self, at: int) -> None:
        default, staged = self.machine.menu()[0].image_id, self._to_be_finalized()
        if staged is None or self._conflicts(staged):
            return
        failure: Error | None = None
        with meanwhile(at, lambda: self.room.fill(Level.NOTHING)), suppressed_when_full() as failed:
            failure = self.machine.reboot()
        if failed:
            self.machine.start()
        if failed or failure is not None:
            assert isinstance(failure, NoSpaceOnBoot | None)
            assert self.machine.booted_id == default
            assert self._failures_of(staged[0])
        else:
            assert self.machine.booted_id == staged[0]
            self.etc[staged[0]] = staged[1]

    @rule(at=CHANGES, cut=st.booleans())
    def interrupt_the_shutdown(self, at: int, cut: bool) -> None:
        default = self.machine.menu()[0].image_id
        staged = self._to_be_finalized()
        if staged is None:
            return
        if cut:
            self.machine.power_cut(at, finalize.finalize_staged)
        else:
            self.machine.killed(at, finalize.finalize_staged)
            self.machine.start()
        assert self.machine.booted_id in (default, staged[0])
        if self.machine.booted_id == staged[0]:
            assert not self._conflicts(staged)
            self.etc[staged[0]] = staged[1]

    # -- what always holds

    @invariant()
    def what_boots_is_whole(self) -> None:
        for shown in self.machine.menu():
            self.machine.check_bootable(shown)

    @invariant()
    def status_answers(self) -> None:
        status = self.machine.status()["status"]
        assert status["booted"]["composefs"]["verity"] == self.machine.booted_id
        announced = self.machine.announced()
        if announced is not None and announced[0] != self.machine.booted_id and status["staged"]:
            assert status["staged"]["composefs"]["verity"] == announced[0]
            assert status["staged"]["downloadOnly"] is announced[1]
        first = self.machine.menu()[0].image_id
        staged = status["staged"] and status["staged"]["composefs"]["verity"]
        assert status["rollbackQueued"] is (first not in (self.machine.booted_id, staged))

    @invariant()
    def every_deployment_has_its_own_etc(self) -> None:
        for shown in self.machine.menu():
            assert self.machine.etc(shown.image_id) == self.etc[shown.image_id]

    @invariant()
    def parts_have_the_arguments_of_their_image(self) -> None:
        for shown in self.machine.menu() if self.in_parts else ():
            asked = self.images.image(shown.image_id).kargs.split()
            assert set(shown.options.split()) >= {"rw", "root=UUID=1", *asked}

    @invariant()
    def what_is_kept_is_there(self) -> None:
        shown = {entry.image_id for entry in self.machine.menu()}
        assert self.machine.pinned() == self.pinned
        assert shown >= {self.machine.booted_id, *self.pinned}

    @invariant()
    def foreign_entries_are_there(self) -> None:
        if self.scheme.menu_is_file:
            text = self.machine.entries.read_text()
            assert all(text.count(f'"{title}"') == 1 for title in self.foreign)
        else:
            found = {name: (self.machine.entries / name).read_bytes() for name in self.foreign}
            assert found == self.foreign

    @invariant()
    def what_others_left_is_there(self) -> None:
        found = self.machine.contents(repository=bool(self.planted)) if self.planted else {}
        assert {path: found.get(path) for path in self.planted} == self.planted

    @invariant()
    def nothing_stays_for_ever(self) -> None:
        kinds = [finding["kind"] for finding in self.machine.status()["status"].get("findings", [])]
        assert "leftover" not in kinds

    @invariant()
    def notice_what_is_staged(self) -> None:
        self.room.notice()

    def teardown(self) -> None:
        self.stack.close()

    # -- running commands

    def run(self, verb: Verb) -> Error | None:
        """Run a command dry, in earnest, and again; return why it was refused, if it was."""
        before, wanted = self.machine.contents(repository=False), self.verbs.wanted()
        roomy = self._with_room(verb) if self.room.has_end else None
        said, refused = self._attempt(
            lambda system, journal: verb.run(view_of(system), journal, True)
        )
        if roomy is not None:
            self._check_room(verb, roomy, (said, refused))
        assert self.machine.contents(repository=False) == before, "a dry run changed something"
        with carried_out() as steps:
            results: list[object] = []
            _, error = self._attempt(
                lambda system, journal: verb.run(system, journal, False), results
            )
        assert type(error) is type(refused), f"{verb.name}: {refused!r} when dry, then {error!r}"
        if error is not None:
            assert self.machine.contents(repository=False) == before, f"{error!r} left something"
            return error
        self._compare(said, steps)
        if any(isinstance(step, CollectObjects) for step in steps):
            self.room.check_tidy()
        self.pinned = self._pinned_now(verb)
        if verb.target is not None and results == [True]:
            self._check_next(verb.target)
        if not verb.toggles and self.verbs.wanted() is wanted:
            done = self.machine.contents(repository=True)
            self._attempt(lambda system, journal: verb.run(system, journal, False))
            again = self.machine.contents(repository=True)
            differing = {k for k in again.keys() | done.keys() if done.get(k) != again.get(k)}
            assert not differing, f"repeated, {verb.name} changed {differing}"
        return None

    def _with_room(self, verb: Verb) -> tuple[Journal, Error | None]:
        """Return what a command would do if there was any room."""
        with self.room.lifted():
            return self._attempt(lambda system, journal: verb.run(view_of(system), journal, True))

    def _check_room(
        self,
        verb: Verb,
        with_room: tuple[Journal, Error | None],
        as_it_is: tuple[Journal, Error | None],
    ) -> None:
        """Make sure that room decides what it has to decide, and nothing else."""
        said, refused = as_it_is
        suffices = self.room.suffices(Writes.announced(with_room[0]))
        if with_room[1] is not None:
            assert type(refused) is type(with_room[1])
        elif refused is None:
            assert suffices is not False, f"{verb.name} says that there is room"
            more = [line[2:] for line in said if line not in with_room[0]]
            assert all(line.startswith(MAKING_ROOM) for line in more), more
        else:
            assert isinstance(refused, NoSpaceOnBoot)
            assert suffices is not True, f"{verb.name} says that there is no room"

    def _attempt(
        self, run: Callable[..., object], results: list[object] | None = None
    ) -> tuple[Journal, Error | None]:
        journal = Journal()
        try:
            with self.machine.open() as system:
                result = run(system, journal)
        except Error as exc:
            return journal, exc
        if results is not None:
            results.append(result)
        return journal, None

    def _compare(self, said: Journal, steps: list[Step]) -> None:
        """Make sure that what was done is what was said, and cleaning up."""
        planned = [line[2:] for line in said if line.startswith(("* ", "  "))]
        for step in steps:
            if planned and str(step) == planned[0]:
                planned.pop(0)
            else:
                assert isinstance(step, CLEANING), f"{step} was not announced"
        assert planned == [], "this was announced and not done"

    @rule(policy=st.sampled_from([ConflictPolicy.KEEP_LOCAL, ConflictPolicy.TAKE_NEW]))
    def decide_late(self, policy: ConflictPolicy) -> None:
        """Ask for the update that is staged already, and for how to resolve its conflicts."""
        announced = self.machine.announced()
        if announced is not None and announced[0] == self.verbs.wanted().image_id:
            self.run(self.verbs.upgrade(False, policy))
            origin = self.verbs.origin(announced[0])
            if self.verbs.wanted().offered.tag not in ("new", "rebuilt"):
                assert origin["bootc"]["etc-conflict"] == policy.value

    def _check_next(self, target: str) -> None:
        announced = self.machine.announced()
        if announced is None:
            assert self.machine.menu()[0].image_id == target
        else:
            assert announced == (target, False)
            assert self.machine.finalizer_runs

    def _pinned_now(self, verb: Verb) -> set[str]:
        name, _, image_id = verb.name.partition(" ")
        if name == "pin":
            return self.pinned | {image_id}
        if name == "unpin":
            return self.pinned - {image_id}
        return self.pinned

    # -- what a user knows

    def _to_be_finalized(self) -> tuple[str, dict[str, str]] | None:
        """Return what the shutdown makes the default, and the ``/etc`` it gets."""
        announced = self.machine.announced()
        if announced is None or announced[1] or not self.machine.finalizer_runs:
            return None
        staged, booted = announced[0], self.machine.booted_id
        if staged == booted:
            return None
        pristine, new = self.images.image(booted).etc, self.images.image(staged).etc
        policy = self.verbs.origin(staged).get("bootc", "etc-conflict", fallback="fail")
        return staged, merged(pristine, self.etc[booted], new, policy)

    def _conflicts(self, staged: tuple[str, dict[str, str]]) -> bool:
        return "conflict" in staged[1]


def merged(
    pristine: osimages.Etc, current: osimages.Etc, new: osimages.Etc, policy: str
) -> dict[str, str]:
    """Merge as users expect it: what was changed here stays, all else is as in the new image.

    A path that is a file on one side and a directory on the other is a conflict.
    """
    result = {}
    for path in {*pristine, *current, *new} - {"x", "x/in"}:
        winner = new if current.get(path) == pristine.get(path) else current
        if path in winner:
            result[path] = winner[path]
    before, here, there = (
        {p: t for p, t in e.items() if p.startswith("x")} for e in (pristine, current, new)
    )
    if here == before:
        return result | there
    if there == before or here.keys() == there.keys() or policy == "keep-local":
        return result | here
    return result | there if policy == "take-new" else result | here | {"conflict": ""}


@contextmanager
def suppressed_when_full() -> Iterator[list[OSError]]:
    """Bear with what an operating system says of a full disk, and write it down."""
    found: list[OSError] = []
    try:
        yield found
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        found.append(exc)


@contextmanager
def carried_out() -> Iterator[list[Step]]:
    """Write down the steps that are carried out."""
    steps: list[Step] = []
    carry_out = execute._carry_out

    def noting(step: Step, *args: object) -> None:
        carry_out(step, *args)  # type: ignore[arg-type]
        steps.append(step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute, "_carry_out", noting)
        yield steps


def images_of(scheme: Scheme, age: Age, *, in_parts: bool = False) -> Images:
    """Return the images for the boot type of a scheme and an age, made once."""
    key = scheme.boot_type, age, in_parts
    if key not in _IMAGES:
        directory = tempfile.TemporaryDirectory(dir=IN_MEMORY)
        _KEPT.append(directory)
        boot_type = BootType.BLS
        if in_parts or scheme.boot_type.is_unified:
            boot_type = BootType.UKI
        _IMAGES[key] = Images(Path(directory.name), boot_type, age=age, in_parts=in_parts)
    return _IMAGES[key]


@pytest.mark.parametrize("scheme", SCHEMES, ids=scheme_name)
def test_update_sequences(scheme: Scheme) -> None:
    machine = type("Machine", (UpdateMachine,), {"scheme": scheme})
    run_state_machine_as_test(machine, settings=of_machine(30))


@pytest.mark.parametrize("scheme", [SYSTEMD, GRUB_GENERATED], ids=scheme_name)
def test_update_sequences_in_parts(scheme: Scheme) -> None:
    machine = type("Machine", (UpdateMachine,), {"scheme": scheme, "in_parts": True})
    run_state_machine_as_test(machine, settings=of_machine(30))


@pytest.fixture
def updated() -> Iterator[UpdateMachine]:
    """Yield a machine that was updated once, where TURNED is staged."""
    machine = UpdateMachine()
    machine.scheme = SYSTEMD
    machine.install("old", "renamed", ["new"])
    machine.upgrade("turned", False, ConflictPolicy.FAIL)
    yield machine
    machine.teardown()


@pytest.mark.parametrize(
    ("policy", "file"),
    [(ConflictPolicy.KEEP_LOCAL, "x"), (ConflictPolicy.TAKE_NEW, "x/in")],
)
def test_a_conflict_decided_after_staging(
    updated: UpdateMachine, policy: ConflictPolicy, file: str
) -> None:
    updated.edit_what_may_conflict("mine")
    updated.decide_late(policy)
    updated.reboot()
    assert updated.machine.booted_id == updated.images.ids["turned"]
    assert file in updated.machine.etc(updated.machine.booted_id)


def test_a_conflict_that_nobody_decided(updated: UpdateMachine) -> None:
    updated.edit_what_may_conflict("mine")
    updated.reboot()
    assert updated.machine.booted_id == updated.images.ids["new"]
    updated.upgrade("turned", False, ConflictPolicy.TAKE_NEW)
    updated.reboot()
    assert updated.machine.booted_id == updated.images.ids["turned"]


def test_a_staged_deployment_is_not_pinned(updated: UpdateMachine) -> None:
    updated.pin("staged", True)
    assert updated.machine.pinned() == set()
    updated.another_command(4)
    assert updated.machine.announced() is None
