"""State directories of deployments, on a real file system."""

from __future__ import annotations

import dataclasses
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootc.deploy.host.model import Timestamp
from bootc.deploy.host.notes import CleanupFailure, FinalizeFailure
from bootc.deploy.host.statedir import (
    StateDir,
    StateEntry,
    cleanup_failures_path,
    deployments_path,
    list_states,
    read_cleanup_failures,
    state_path,
    write_cleanup_failures,
)
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.ocispec import MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES
from bootc.formats.origin import BootType, Origin
from bootc.fs.dir import Dir
from support.failing import failing
from support.sysroot import image_id

A, B = image_id("aa"), image_id("bb")
MOMENT = Timestamp.parse("2026-08-01T00:00:00.5Z")
ORIGIN = Origin(
    image=ImageReference("registry", "quay.io/example/os:43"),
    boot_type=BootType.BLS,
    boot_digest="ab" * 32,
    manifest_digest=OciDigest("sha256", "cd" * 32),
)


@pytest.fixture
def physical(tmp_path: Path) -> Iterator[Dir]:
    (tmp_path / "state").mkdir()
    with Dir.open(tmp_path) as directory:
        yield directory


@pytest.fixture
def state(physical: Dir) -> Iterator[StateDir]:
    with physical.ensure_dir("state/deploy") as deployments:
        deployments.mkdir(A.hex)
    with StateDir.open(physical, A) as directory:
        yield directory


def test_where_it_is(physical: Dir, state: StateDir) -> None:
    assert state.path == f"{physical.path}/state/deploy/{A}"
    assert state_path(physical, A) == state.path
    assert deployments_path(physical) == f"{physical.path}/state/deploy"


def test_a_deployment_without_state(physical: Dir, state: StateDir) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        StateDir.open(physical, B)
    assert caught.value.filename == state_path(physical, B)


@pytest.mark.parametrize("what", ["file", "link"])
def test_a_state_that_is_no_directory(physical: Dir, state: StateDir, what: str) -> None:
    path = Path(state_path(physical, B))
    if what == "file":
        path.write_bytes(b"")
    else:
        path.symlink_to(A.hex)
    with pytest.raises(NotADirectoryError):
        StateDir.open(physical, B)


def test_an_origin_comes_back(state: StateDir) -> None:
    with pytest.raises(FileNotFoundError):
        state.read_origin()
    state.write_origin(dataclasses.replace(ORIGIN, boot_digest=None))
    state.write_origin(ORIGIN)
    assert state.read_origin() == ORIGIN
    assert state.dir.names() == [f"{A}.origin"]
    assert stat.S_IMODE(state.dir.stat(f"{A}.origin").st_mode) == 0o644


@pytest.mark.parametrize("at", [1, 2])
def test_a_full_disk_keeps_the_origin(state: StateDir, at: int) -> None:
    state.write_origin(ORIGIN)
    with failing(at, errno.ENOSPC), pytest.raises(OSError, match="No space left"):
        state.write_origin(dataclasses.replace(ORIGIN, boot_digest=None))
    assert state.read_origin() == ORIGIN
    assert state.dir.names() == [f"{A}.origin"]


@pytest.mark.parametrize(
    ("name", "limit", "read"),
    [
        (f"{A}.origin", 1 << 16, StateDir.read_origin),
        ("finalize-failure.json", 1 << 16, StateDir.read_failure),
        ("etc-decisions.json", 1 << 20, StateDir.read_decisions),
        (f"{A}.imginfo", MAX_MANIFEST_BYTES + MAX_CONFIG_BYTES, StateDir.read_imginfo),
    ],
)
def test_a_file_of_any_size_is_not_read(
    state: StateDir, name: str, limit: int, read: Callable[[StateDir], object]
) -> None:
    os.truncate(state.dir.open_file(name, os.O_CREAT | os.O_RDWR), limit + 1)
    with pytest.raises(OSError, match=f"larger than {limit} bytes"):
        read(state)


def test_what_is_among_the_deployments(physical: Dir, state: StateDir) -> None:
    deployments = Path(deployments_path(physical))
    left = f".removed-{A}-1"
    for name in (left, "lost+found", A.hex.upper(), B.hex):
        (deployments / name).mkdir()
    assert list_states(physical) == [
        StateEntry(left, None, is_leftover=True),
        *sorted(
            [
                StateEntry(A.hex, A, is_leftover=False),
                StateEntry(A.hex.upper(), None, is_leftover=False),
                StateEntry(B.hex, B, is_leftover=False),
                StateEntry("lost+found", None, is_leftover=False),
            ],
            key=lambda entry: entry.name,
        ),
    ]


def test_no_deployments_at_all(physical: Dir) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        list_states(physical)
    assert caught.value.filename == deployments_path(physical)


def test_pinning(state: StateDir) -> None:
    assert not state.is_pinned()
    for wanted in (False, True, True, False, False):
        state.set_pinned(wanted)
        assert state.is_pinned() is wanted
        assert state.dir.names() == (["pinned"] if wanted else [])
    state.set_pinned(True)
    assert state.dir.read_bytes("pinned") == b""


def test_pinning_twice_changes_nothing(state: StateDir) -> None:
    state.set_pinned(True)
    before = state.dir.stat("pinned")
    state.set_pinned(True)
    assert state.dir.stat("pinned") == before


@pytest.mark.parametrize("time", [None, MOMENT])
def test_a_failure_comes_back(state: StateDir, time: Timestamp | None) -> None:
    failure = FinalizeFailure("conflicts in /etc: é", time)
    assert state.read_failure() is None
    state.write_failure(FinalizeFailure("an older one"))
    state.write_failure(failure)
    assert state.read_failure() == failure
    state.clear_failure()
    state.clear_failure()
    assert state.dir.names() == []


@pytest.mark.parametrize("at", [1, 2])
def test_a_full_disk_keeps_what_was_there(state: StateDir, at: int) -> None:
    old = FinalizeFailure("the first")
    state.write_failure(old)
    with failing(at, errno.ENOSPC), pytest.raises(OSError, match="No space left") as caught:
        state.write_failure(FinalizeFailure("the second"))
    assert caught.value.__notes__ == [f"Recording the failure in {state.path}"]
    assert state.read_failure() == old
    assert state.dir.names() == ["finalize-failure.json"]


def test_a_pin_that_cannot_be_written(state: StateDir) -> None:
    with failing(1, errno.EROFS), pytest.raises(OSError, match="Read-only") as caught:
        state.set_pinned(True)
    assert caught.value.__notes__ == [f"Pinning {state.path}"]
    assert not state.is_pinned()


def test_odd_things_in_place_of_notes(state: StateDir) -> None:
    for name in ("finalize-failure.json", "pinned"):
        os.mkfifo(Path(state.path, name))
    with pytest.raises(OSError, match="not a regular file"):
        state.read_failure()
    # Kept rather than lost.
    assert state.is_pinned()
    state.set_pinned(False)
    state.clear_failure()
    assert state.dir.names() == []


def test_decisions_come_back(state: StateDir) -> None:
    assert state.read_decisions() is None
    state.write_decisions(b"one")
    state.write_decisions(b"two")
    assert state.read_decisions() == b"two"
    assert state.dir.names() == ["etc-decisions.json"]


@pytest.mark.parametrize(
    "failures",
    [
        (CleanupFailure("it is mounted", False),),
        (CleanupFailure("it is mounted", False, MOMENT), CleanupFailure("it is damaged", True)),
        tuple(CleanupFailure(f"{n}: it is mounted", True, MOMENT) for n in range(100)),
    ],
)
def test_what_could_not_be_removed_comes_back(
    physical: Dir, failures: tuple[CleanupFailure, ...]
) -> None:
    assert read_cleanup_failures(physical) == ()
    write_cleanup_failures(physical, failures)
    found = read_cleanup_failures(physical)
    assert [f.in_repository for f in found] == [f.in_repository for f in failures]
    assert [f.time for f in found] == [f.time for f in failures]
    assert [f.reason[:1] for f in found] == [f.reason[:1] for f in failures]
    write_cleanup_failures(physical, ())
    assert read_cleanup_failures(physical) == ()
    assert physical.names() == ["state"]
    assert os.listdir(Path(physical.path, "state")) == []


def test_clean_ups_before_there_is_state(tmp_path: Path) -> None:
    with Dir.open(tmp_path) as empty:
        assert read_cleanup_failures(empty) == ()
        with pytest.raises(FileNotFoundError):
            write_cleanup_failures(empty, [CleanupFailure("it is mounted", False)])


@pytest.mark.parametrize("at", [1, 2])
def test_a_full_disk_keeps_the_note_of_the_last_clean_up(physical: Dir, at: int) -> None:
    write_cleanup_failures(physical, [CleanupFailure("the first", False)])
    with failing(at, errno.ENOSPC), pytest.raises(OSError, match="No space left") as caught:
        write_cleanup_failures(physical, [CleanupFailure("the second", False)])
    where = f"{physical.path}/state"
    assert caught.value.__notes__ == [f"Recording what could not be removed in {where}"]
    assert read_cleanup_failures(physical) == (CleanupFailure("the first", False),)
    assert cleanup_failures_path(physical) == f"{where}/cleanup-failures.json"
    assert os.listdir(where) == ["cleanup-failures.json"]
