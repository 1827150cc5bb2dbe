from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.deploy import records
from bootc.deploy.host.facts import CleanupFailure, FinalizeFailure
from bootc.deploy.host.model import ImageSpec, ImageStatus, Timestamp
from bootc.deploy.records import RecordError
from bootc.formats.digest import OciDigest
from bootc.formats.imgref import ImageReference
from bootc.formats.origin import Signature
from bootc.fs.dir import Dir
from support.failing import failing

MOMENT = Timestamp.parse("2026-08-01T00:00:00.5Z")
DIGEST = OciDigest("sha256", "11" * 32)
IMAGE = ImageReference("registry", "quay.io/example/os:43")


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Dir]:
    with Dir.open(tmp_path) as directory:
        yield directory


def test_pinning(state_dir: Dir) -> None:
    assert not records.is_pinned(state_dir)
    for wanted in (False, True, True, False, False):
        records.set_pinned(state_dir, wanted)
        assert records.is_pinned(state_dir) is wanted
        assert state_dir.names() == (["pinned"] if wanted else [])
    records.set_pinned(state_dir, True)
    assert state_dir.read_bytes("pinned") == b""


def test_pinning_twice_changes_nothing(state_dir: Dir) -> None:
    records.set_pinned(state_dir, True)
    before = state_dir.stat("pinned")
    records.set_pinned(state_dir, True)
    assert state_dir.stat("pinned") == before


@pytest.mark.parametrize(
    "update",
    [
        ImageStatus(ImageSpec(IMAGE), DIGEST, "amd64"),
        ImageStatus(ImageSpec(IMAGE, Signature()), DIGEST, "amd64", "44", MOMENT),
        ImageStatus(ImageSpec(IMAGE, Signature("fedora")), DIGEST, "amd64", None, MOMENT),
    ],
)
def test_an_update_comes_back(state_dir: Dir, update: ImageStatus) -> None:
    assert records.read_cached_update(state_dir) is None
    records.write_cached_update(state_dir, update)
    records.write_cached_update(state_dir, update)
    assert records.read_cached_update(state_dir) == update
    assert json.loads(state_dir.read_bytes("cached-update.json")) == update.to_json()


@pytest.mark.parametrize("time", [None, MOMENT])
def test_a_failure_comes_back(state_dir: Dir, time: Timestamp | None) -> None:
    failure = FinalizeFailure("conflicts in /etc: é", time)
    assert records.read_failure(state_dir) is None
    records.write_failure(state_dir, FinalizeFailure("an older one"))
    records.write_failure(state_dir, failure)
    assert records.read_failure(state_dir) == failure
    records.clear_failure(state_dir)
    records.clear_failure(state_dir)
    assert state_dir.names() == []


GOOD = ImageStatus(ImageSpec(IMAGE), DIGEST, "amd64").to_json()


@pytest.mark.parametrize(
    "value",
    [
        {},
        {**GOOD, "image": None},
        {**GOOD, "image": {"image": "x", "transport": "carrier-pigeon"}},
        {**GOOD, "image": {"image": "x", "transport": "oci", "signature": {}}},
        {**GOOD, "image": {"image": "x", "transport": "oci", "signature": "insecure"}},
        {**GOOD, "imageDigest": "sha256:11"},
        {**GOOD, "imageDigest": 1},
        {**GOOD, "architecture": None},
        {**GOOD, "architecture": "\x1b[2J"},
        {**GOOD, "timestamp": "soon"},
        {**GOOD, "version": ["44"]},
    ],
)
def test_an_update_that_makes_no_sense(state_dir: Dir, value: object) -> None:
    Path(state_dir.path, "cached-update.json").write_text(json.dumps(value))
    with pytest.raises(RecordError, match=r"^cached-update\.json is malformed: "):
        records.read_cached_update(state_dir)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"reason":1}',
        b'{"reason":"x","time":7}',
        b'{"reason":"x","time":"soon"}',
        b"[" * 60_000,
        b'{"reason":' + b"9" * 5000 + b"}",
    ],
)
def test_a_failure_that_makes_no_sense(state_dir: Dir, data: bytes) -> None:
    Path(state_dir.path, "finalize-failure.json").write_bytes(data)
    with pytest.raises(RecordError, match=r"^finalize-failure\.json is malformed: "):
        records.read_failure(state_dir)


def test_a_reason_with_anything_in_it(state_dir: Dir) -> None:
    records.write_failure(state_dir, FinalizeFailure("two\nlines \udcff"))
    assert records.read_failure(state_dir) == FinalizeFailure("two\\nlines \\xff")


def test_odd_things_in_place_of_notes(state_dir: Dir) -> None:
    for name in ("cached-update.json", "finalize-failure.json", "pinned"):
        os.mkfifo(Path(state_dir.path, name))
    with pytest.raises(OSError, match="not a regular file"):
        records.read_cached_update(state_dir)
    with pytest.raises(OSError, match="not a regular file"):
        records.read_failure(state_dir)
    # Kept rather than lost.
    assert records.is_pinned(state_dir)
    records.set_pinned(state_dir, False)
    records.clear_failure(state_dir)
    assert state_dir.names() == ["cached-update.json"]


def test_a_note_of_any_size_is_not_read(state_dir: Dir) -> None:
    Path(state_dir.path, "cached-update.json").write_bytes(b" " * 70_000)
    with pytest.raises(OSError, match="larger than 65536 bytes"):
        records.read_cached_update(state_dir)


@pytest.mark.parametrize("at", [1, 2])
def test_a_full_disk_keeps_what_was_there(state_dir: Dir, at: int) -> None:
    old = FinalizeFailure("the first")
    records.write_failure(state_dir, old)
    with failing(at, errno.ENOSPC), pytest.raises(OSError, match="No space left") as caught:
        records.write_failure(state_dir, FinalizeFailure("the second"))
    assert caught.value.__notes__ == [f"Recording the failure in {state_dir.path}"]
    assert records.read_failure(state_dir) == old
    assert state_dir.names() == ["finalize-failure.json"]


def test_a_pin_that_cannot_be_written(state_dir: Dir) -> None:
    with failing(1, errno.EROFS), pytest.raises(OSError, match="Read-only") as caught:
        records.set_pinned(state_dir, True)
    assert caught.value.__notes__ == [f"Pinning {state_dir.path}"]
    assert not records.is_pinned(state_dir)


@pytest.mark.parametrize(
    "failures",
    [
        (CleanupFailure("it is mounted", False),),
        (CleanupFailure("it is mounted", False, MOMENT), CleanupFailure("it is damaged", True)),
        tuple(CleanupFailure(f"{n}: it is mounted", True, MOMENT) for n in range(100)),
    ],
)
def test_what_could_not_be_removed_comes_back(
    state_dir: Dir, failures: tuple[CleanupFailure, ...]
) -> None:
    assert records.read_cleanup_failures(state_dir) == ()
    records.write_cleanup_failures(state_dir, failures)
    found = records.read_cleanup_failures(state_dir)
    assert [f.in_repository for f in found] == [f.in_repository for f in failures]
    assert [f.time for f in found] == [f.time for f in failures]
    assert [f.reason[:1] for f in found] == [f.reason[:1] for f in failures]
    records.write_cleanup_failures(state_dir, ())
    assert records.read_cleanup_failures(state_dir) == ()
    assert state_dir.names() == []


def test_a_note_stays_readable_however_much_fails(state_dir: Dir) -> None:
    records.write_cleanup_failures(state_dir, [CleanupFailure("é" * 10_000, False)] * 1000)
    found = records.read_cleanup_failures(state_dir)
    assert len(found) == 7
    assert {failure.reason for failure in found} == {"é" * 1500}
    assert state_dir.stat("cleanup-failures.json").st_size <= 1 << 16


@pytest.mark.parametrize(
    "note",
    [
        "{",
        "[]",
        "{}",
        '{"failures": 1}',
        '{"failures": [1]}',
        '{"failures": [{"reason": 1}]}',
        '{"failures": [{"reason": "x", "time": "yesterday"}]}',
        '{"failures": ' + "[" * 30_000 + "]" * 30_000 + "}",
    ],
)
def test_malformed_notes_of_clean_ups(state_dir: Dir, note: str) -> None:
    Path(state_dir.path, "cleanup-failures.json").write_text(note)
    with pytest.raises(RecordError, match=r"cleanup-failures\.json is malformed"):
        records.read_cleanup_failures(state_dir)
