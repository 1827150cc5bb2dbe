"""Garbage collection beside other handles and processes."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator

import pytest

from bootc.errors import Error
from bootc.events import Done, Event, Notice, Start
from bootc.fs.dir import Dir
from bootc.fs.lock import LockedByOther, LockedHere, lock_exclusive, lock_shared
from bootc.repository.gc import UnreadableRoot, collect
from bootc.repository.repository import Repository
from support.children import let_go_after, lock_held
from support.collecting import NOTHING
from support.verity import FakeVerity


def test_a_second_handle_of_this_process_is_told_and_not_waited_for(
    repository: Repository, parent: Dir
) -> None:
    verity = FakeVerity(error=None if repository.secure else 95)
    with Repository.open(parent, require_verity=False, verity=verity) as second:
        with pytest.raises(LockedHere, match="open twice in this process"):
            collect(repository)
        assert collect(second, dry_run=True) == NOTHING
    assert collect(repository) == NOTHING


def test_opening_within_a_collection_is_told(repository: Repository, parent: Dir) -> None:
    with repository.alone(), pytest.raises(LockedHere):
        Repository.open(parent, require_verity=False)
    Repository.open(parent, require_verity=False, verity=FakeVerity(error=95)).close()


@pytest.fixture
def other_process(repository: Repository) -> Iterator[Callable[[], None]]:
    """Another process that uses the repository; call it to let it end."""
    with lock_held(repository.dir.path, fcntl.LOCK_SH) as other:
        yield other.let_go


@pytest.mark.usefixtures("other_process")
def test_another_process_is_not_disturbed(repository: Repository) -> None:
    repository.objects.put(b"stray")
    with pytest.raises(LockedByOther) as caught:
        collect(repository, wait=False)
    assert isinstance(caught.value, Error)
    assert collect(repository, dry_run=True).objects_removed == 1
    # The shared lock is back.
    with Dir.open(repository.dir.path) as directory, pytest.raises(LockedHere):
        lock_exclusive(directory)


def test_waiting_for_another_process_is_announced(
    repository: Repository, other_process: Callable[[], None]
) -> None:
    events: list[Event] = []

    def sink(event: Event) -> None:
        events.append(event)
        if isinstance(event, Notice):
            let_go_after(0.05, other_process)

    assert collect(repository, sink=sink) == NOTHING
    assert isinstance(events[0], Notice)
    assert repository.dir.path in events[0].text
    assert [type(event) for event in events[1:]] == [Start, Done, Start, Done]


def test_another_process_that_is_quick_is_waited_for_in_silence(
    repository: Repository, other_process: Callable[[], None]
) -> None:
    let_go_after(0.1, other_process)
    events: list[Event] = []
    with repository.alone(sink=events.append):
        pass
    assert events == []


def test_the_lock_is_shared_again_after_a_failure(repository: Repository) -> None:
    with pytest.raises(UnreadableRoot):
        collect(repository, roots=["typo"])
    with Dir.open(repository.dir.path) as directory:
        lock_shared(directory, wait=False)


def test_who_locks_during_the_sweep_waits(repository: Repository) -> None:
    with (
        repository.alone(),
        Dir.open(repository.dir.path) as directory,
        pytest.raises(LockedHere),
    ):
        lock_shared(directory, wait=False)
