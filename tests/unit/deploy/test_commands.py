"""What all commands have in common: they gather facts once, and the journal hears of changes.

Real commands on directories; the machine around them is made up.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from bootc.deploy import cleanup, finalize, rollback, upgrade
from bootc.deploy.host import survey
from bootc.deploy.host.facts import Facts
from bootc.deploy.host.model import ImageSpec
from bootc.deploy.host.session import HostSession, NotAllowed, NotBooted
from bootc.deploy.journal import Event
from bootc.deploy.upgrade import UpdateOptions
from bootc.errors import Error
from support import osimages
from support.bench import Bench
from support.failing import FAILURES, Failing, failing
from support.machine import FakeMachine, Journal, Told
from support.osimages import Channel

#: A command that may be a dry run.
DryCommand = Callable[[HostSession, Journal, bool], object]


def commands(bench: Bench, top: Path) -> dict[str, DryCommand]:
    """Return commands by name, of a machine that has TURNED staged and offers OTHER."""
    other = Channel(top / "other", bench.images, osimages.RENAMED)

    def switch(system: HostSession, journal: Journal, dry: bool) -> object:
        target, options = ImageSpec(other.reference), UpdateOptions(dry_run=dry)
        return upgrade.switch(system, target, options, journal, retain=True)

    def upgrading(
        system: HostSession, journal: Journal, dry: bool, *, hold: bool = False
    ) -> object:
        options = UpdateOptions(dry_run=dry, download_only=hold)
        return upgrade.upgrade(system, options, journal)

    return {
        "switch --retain": switch,
        "upgrade": upgrading,
        "upgrade --download-only": partial(upgrading, hold=True),
        "upgrade --cancel": lambda s, j, dry: upgrade.cancel(s, j, dry_run=dry),
        "upgrade --from-downloaded": lambda s, j, dry: upgrade.release(
            s, UpdateOptions(dry_run=dry), j
        ),
        "rollback": lambda s, j, dry: rollback.rollback(s, j, dry_run=dry),
        "delete-deployment": lambda s, j, dry: rollback.delete_deployment(
            s, "rollback", j, dry_run=dry
        ),
        "delete-deployment staged": lambda s, j, dry: rollback.delete_deployment(
            s, "staged", j, dry_run=dry
        ),
        "pin": lambda s, j, dry: rollback.set_pin(s, "rollback", j, pinned=True, dry_run=dry),
        "unpin": lambda s, j, dry: rollback.set_pin(s, "rollback", j, pinned=False, dry_run=dry),
        "composefs-gc": lambda s, j, dry: cleanup.collect_garbage(s, j, dry_run=dry),
    }


#: What the journal is told by each of them, and how many times each reads all facts.
TOLD: dict[str, tuple[list[Event], int]] = {
    "switch --retain": ([Event.SWITCH_STAGED, Event.PINNED], 2),
    "upgrade": ([], 1),
    "upgrade --download-only": ([Event.UPGRADE_STAGED], 1),
    "upgrade --cancel": ([Event.STAGED_DROPPED], 2),
    "upgrade --from-downloaded": ([], 1),
    "rollback": ([Event.STAGED_DROPPED, Event.ROLLBACK], 1),
    "delete-deployment": ([Event.DEPLOYMENT_DELETED], 2),
    "delete-deployment staged": ([Event.STAGED_DROPPED, Event.DEPLOYMENT_DELETED], 2),
    "pin": ([Event.PINNED], 1),
    "unpin": ([], 1),
    "composefs-gc": ([], 1),
}


#: Those that find nothing to change.
UNCHANGED = {"unpin"}


@pytest.fixture
def staged(bench: Bench) -> Bench:
    """Return a machine that runs NEW, can go back to OLD, and has TURNED staged."""
    bench.upgrade(osimages.TURNED)
    assert bench.machine.told.events() == [Event.UPGRADE_STAGED]
    return bench


@pytest.fixture
def gathered(monkeypatch: pytest.MonkeyPatch) -> list[Facts]:
    """Return what commands gather, and clean-ups after them."""
    found: list[Facts] = []
    for module in (survey, cleanup):
        original = module.gather  # type: ignore[attr-defined]

        def gather(
            system: HostSession, original: Callable[[HostSession], Facts] = original
        ) -> Facts:
            found.append(original(system))
            return found[-1]

        monkeypatch.setattr(module, "gather", gather)
    return found


@pytest.mark.parametrize("name", TOLD)
def test_each_command_gathers_once_and_tells_what_it_changed(
    name: str, staged: Bench, tmp_path: Path, gathered: list[Facts]
) -> None:
    machine, command = staged.machine, commands(staged, tmp_path)[name]
    events, gathers = TOLD[name]
    before = machine.contents(repository=False)
    announcements = machine.run / "composefs"
    os.utime(announcements, (0, 0))
    machine.command(lambda system, journal: command(system, journal, True))
    assert machine.contents(repository=False) == before
    assert announcements.stat().st_mtime == 0
    assert (machine.told.events(), len(gathered)) == ([], 1)
    gathered.clear()
    machine.command(lambda system, journal: command(system, journal, False))
    # Only a clean-up after a change reads the facts again.
    assert (machine.told.events(), len(gathered)) == (events, gathers)
    # The unit bootc-status-updated.path watches the directory.
    assert (announcements.stat().st_mtime > 0) == (name not in UNCHANGED)


def test_a_released_update(bench: Bench) -> None:
    bench.upgrade(osimages.TURNED, download_only=True)
    bench.machine.command(lambda s, j: upgrade.release(s, UpdateOptions(), j))
    text = f"Staged deployment {bench.id(osimages.TURNED)}, which boots"
    assert [message.text for message in bench.machine.told] == [
        f"{text} when it is released",
        f"{text} next",
    ]


def test_repeating_a_command_tells_nothing(staged: Bench) -> None:
    machine = staged.machine
    pin = partial(rollback.set_pin, name="rollback", pinned=True)
    machine.command(lambda system, journal: pin(system, sink=journal))
    machine.command(cleanup.collect_garbage)
    machine.told.clear()
    machine.command(lambda system, journal: pin(system, sink=journal))
    machine.command(cleanup.collect_garbage)
    staged.upgrade(osimages.TURNED)
    assert machine.told == []


def test_garbage_that_is_collected(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(upgrade, "collect_afterwards", lambda *args: None)
        bench.upgrade(osimages.TURNED)
        bench.machine.command(upgrade.cancel)
    bench.machine.told.clear()
    found = []
    bench.machine.command(lambda s, j: found.append(cleanup.collect_garbage(s, j, dry_run=True)))
    assert [collection.removes_anything for collection in found] == [True]
    assert bench.machine.told == []
    bench.machine.command(cleanup.collect_garbage)
    assert bench.machine.told.events() == [Event.GARBAGE_COLLECTED]


def test_a_command_that_fails_tells_nothing(staged: Bench) -> None:
    with failing(1, errno.EIO) as changes, pytest.raises(OSError, match="Input/output error"):
        staged.machine.command(rollback.rollback)
    assert changes.failed
    assert staged.machine.told == []


def test_a_journal_that_does_not_listen_fails_no_command(
    staged: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Event] = []

    def send(self: Told, message: object) -> bool:
        sent.append(message.event)  # type: ignore[attr-defined]
        return False

    monkeypatch.setattr(Told, "send", send)
    staged.machine.command(rollback.rollback)
    # Each further message would have to wait as well.
    assert sent == [Event.STAGED_DROPPED]
    assert staged.machine.announced() is None


# -- deployments without origin


@pytest.fixture
def damaged(staged: Bench) -> Bench:
    """Return a machine whose rollback deployment has no origin."""
    old = staged.id(osimages.OLD)
    (staged.machine.state(old) / f"{old}.origin").unlink()
    return staged


@pytest.mark.parametrize("name", TOLD)
def test_each_command_reports_damage_once(name: str, damaged: Bench, tmp_path: Path) -> None:
    machine, command = damaged.machine, commands(damaged, tmp_path)[name]
    for dry, reports in ((True, 0), (False, 1)):
        machine.told.clear()
        # Some find no rollback deployment any more.
        with suppress(Error):
            machine.command(lambda system, journal, dry=dry: command(system, journal, dry))
        told = [message for message in machine.told if message.event is Event.MISSING_ORIGIN]
        assert [str(message.deployment) for message in told] == reports * [damaged.id(osimages.OLD)]


def test_a_look_reports_no_damage(damaged: Bench) -> None:
    damaged.machine.told.clear()
    damaged.check()
    damaged.machine.status()
    assert damaged.machine.told == []


# -- finalizing


def test_a_shutdown_tells_what_boots_next(staged: Bench) -> None:
    machine = staged.machine
    assert machine.reboot() is None
    (message,) = machine.told
    assert message.text == f"Deployment {staged.id(osimages.TURNED)} boots next"
    assert message.event is Event.FINALIZED
    machine.told.clear()
    assert machine.reboot() is None
    assert machine.told == []


@pytest.mark.parametrize("failing_at", [how for how, _ in FAILURES.values()], ids=FAILURES)
def test_a_shutdown_that_fails_tells_it(staged: Bench, tmp_path: Path, failing_at: Failing) -> None:
    new, turned = staged.id(osimages.NEW), staged.id(osimages.TURNED)
    for number in itertools.count(1):
        machine = staged.machine.copy(tmp_path / str(number))
        failed = _fails(machine, failing_at, number)
        machine.start()
        events = [message.event for message in machine.told]
        if machine.booted_id == new:
            assert events == [Event.FINALIZE_FAILED]
        elif Event.FINALIZED not in events:
            # The menus were exchanged, and the command does not know it.
            assert events == [Event.FINALIZE_FAILED]
        assert {str(message.deployment) for message in machine.told} == {turned}
        shutil.rmtree(machine.path)
        if not failed:
            assert events == [Event.FINALIZED]
            return


def test_an_interrupted_clean_up_is_no_failure_to_finalize(
    staged: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(finalize, "clean_up", interrupt)
    with pytest.raises(KeyboardInterrupt):
        staged.machine.shut_down()
    assert staged.machine.told.events() == [Event.FINALIZED]
    staged.machine.start()
    assert staged.machine.booted_id == staged.id(osimages.TURNED)


def _fails(machine: FakeMachine, failing_at: Failing, number: int) -> bool:
    with failing_at(number) as changes:
        try:
            machine.shut_down()
        except (KeyboardInterrupt, OSError):
            assert changes.failed
    return changes.failed


@pytest.mark.parametrize(
    "exc", [Error("no disk"), OSError(errno.EIO, "no disk"), KeyboardInterrupt()]
)
def test_a_host_that_cannot_be_opened_at_shutdown(
    exc: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _told_of_opening(exc, monkeypatch)
    assert told.events() == [Event.FINALIZE_FAILED]


def test_the_reason_why_a_host_cannot_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    (message,) = _told_of_opening(Error("no disk"), monkeypatch)
    assert message.text == "Finalizing failed, and bootc status tells what boots next: no disk"
    assert message.deployment is None


@pytest.mark.parametrize("exc", [NotAllowed("not root"), NotBooted("a laptop")])
def test_a_shutdown_of_another_host_tells_nothing(
    exc: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _told_of_opening(exc, monkeypatch) == []


def _told_of_opening(exc: BaseException, monkeypatch: pytest.MonkeyPatch) -> Told:
    def fail(sink: object) -> None:
        raise exc

    told = Told()
    monkeypatch.setattr(finalize, "open_host_session", fail)
    monkeypatch.setattr(finalize, "SystemdJournal", lambda: told)
    with pytest.raises(type(exc)):
        finalize.finalize_at_shutdown(lambda event: None)
    return told


def test_an_interruption_while_a_shutdown_reads_the_host(
    staged: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(system: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(survey, "gather", interrupt)
    with pytest.raises(KeyboardInterrupt):
        staged.machine.shut_down()
    (message,) = staged.machine.told
    assert message.text == "Finalizing failed, and bootc status tells what boots next: interrupted"
