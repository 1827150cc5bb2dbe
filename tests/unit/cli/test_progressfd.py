"""Progress for programs, written to pipes that are read, full, closed or strange."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootc.cli import main as cli
from bootc.cli import progressfd
from bootc.cli.progressfd import ProgressLines
from bootc.events import LAYER_TASK, Done, Event, Message, Progress, Start, null_sink
from support.schemas import problems
from support.upstreamjson import PROGRESS

ONE, TWO = (f"sha256:{digit * 64}" for digit in "12")
TASK, OTHER = f"{LAYER_TASK}{ONE}", f"{LAYER_TASK}{TWO}"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Yield both ends of a pipe."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    now = [0.0]
    monkeypatch.setattr(progressfd.time, "monotonic", lambda: now[0])
    return now


def lines(reader: int) -> list[dict[str, object]]:
    """Read the lines that are in a pipe."""
    data = b""
    while select.select([reader], [], [], 0)[0] and (more := os.read(reader, 1 << 20)):
        data += more
    assert not data or data.endswith(b"\n")
    found = [json.loads(line) for line in data.splitlines()]
    for line, text in zip(found, data.decode().splitlines(), strict=True):
        assert problems("progress", line) == []
        assert text == json.dumps(line, sort_keys=True, separators=(",", ":"))
    return found


def state(**values: object) -> dict[str, object]:
    """Return a line with zeros where it has no other values."""
    zeros = ("bytesCached", "bytes", "bytesTotal", "stepsCached", "steps", "stepsTotal")
    return {
        "type": "ProgressBytes",
        "task": "pulling",
        "description": "Pulling composefs image",
        "id": "composefs-pull",
        **dict.fromkeys(zeros, 0),
        "subtasks": [],
        **values,
    }


def subtask(diff_id: str, done: int, total: int) -> dict[str, object]:
    return {
        "subtask": "composefs_layer",
        "description": f"Layer: sha256:{diff_id[7] * 13}",
        "id": diff_id,
        "bytesCached": 0,
        "bytes": done,
        "bytesTotal": total,
    }


def test_a_pull(pipe: tuple[int, int], clock: list[float]) -> None:
    reader, writer = pipe
    passed: list[Event] = []
    events: list[tuple[float, Event]] = [
        (0.0, Message("Pulling")),
        (0.0, Start(TASK, "Layer", 10)),
        (0.1, Progress(TASK, 5)),  # too early for a line
        (0.3, Progress(TASK, 6)),
        (0.31, Start(OTHER, "Layer", None)),  # too early
        (0.6, Progress(OTHER, 1)),
        (0.61, Done(TASK)),
        (0.62, Done(OTHER, cached=True)),
        (9.0, Start("image", "Making the image")),
        (9.0, Done("image")),
    ]
    with ProgressLines(writer, passed.append) as sink:
        for clock[0], event in events:
            sink(event)
    assert passed == [event for _, event in events]
    assert lines(reader) == [
        {"type": "Start", "version": "0.1.0"},
        state(bytesTotal=10, subtasks=[subtask(ONE, 0, 10)]),
        state(bytes=6, bytesTotal=10, subtasks=[subtask(ONE, 6, 10)]),
        # The size of one is unknown, and so is that of all.
        state(bytes=7, subtasks=[subtask(ONE, 6, 10), subtask(TWO, 1, 0)]),
        state(bytes=1, steps=1, subtasks=[subtask(TWO, 1, 0)]),
        state(steps=1, stepsCached=1),
    ]


def test_each_line_is_one_that_programs_for_upstream_know(pipe: tuple[int, int]) -> None:
    from jsonschema import Draft202012Validator

    reader, writer = pipe
    with ProgressLines(writer, null_sink) as sink:
        sink(Start(TASK, "Layer", 10))
        sink(Done(TASK))
    found = lines(reader)
    assert [line["type"] for line in found] == ["Start", "ProgressBytes", "ProgressBytes"]
    for line in found:
        assert list(Draft202012Validator(PROGRESS).iter_errors(line)) == []


def test_nothing_to_tell(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with ProgressLines(writer, null_sink) as sink:
        sink(Message("No changes"))
    assert lines(reader) == []


def test_a_slow_reader_misses_lines_but_no_part_of_one(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    monkeypatch.setattr(progressfd, "_PAUSE_S", 0)
    begun = time.monotonic()
    with ProgressLines(writer, null_sink) as sink:
        sink(Start(TASK, "Layer", 1000))
        for done in range(1000):
            sink(Progress(TASK, done))
        first = os.read(reader, 1 << 20)
        sink(Done(TASK))
        while not first.endswith(b"\n"):
            first += os.read(reader, 1 << 20)
    assert time.monotonic() - begun < 4
    assert 100 < len(first.splitlines()) < 1000
    for line in first.splitlines():
        assert problems("progress", json.loads(line)) == []
    assert (json.loads(first.splitlines()[-1]), *lines(reader))[-1] == state(steps=1)


def test_a_reader_that_reads_nothing_costs_a_limited_time(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, writer = pipe
    monkeypatch.setattr(progressfd, "_PAUSE_S", 0)
    monkeypatch.setattr(progressfd, "WARNING_PATIENCE_S", 0.2)
    begun = time.monotonic()
    with ProgressLines(writer, null_sink) as sink:
        for number in range(1000):
            sink(Start(f"{TASK}{number}", "Layer", 1000))
            sink(Done(f"{TASK}{number}"))
        assert time.monotonic() - begun < 5
        ended = time.monotonic()
    assert 0.1 < time.monotonic() - ended < 2


def opened(what: str, path: Path) -> int:
    """Return the number of a descriptor that takes no lines."""
    if what == "full":
        return os.open("/dev/full", os.O_WRONLY)
    if what == "read-only":
        path.touch()
        return os.open(path, os.O_RDONLY)
    reader, writer = os.pipe()
    os.close(reader)
    if what == "closed":
        os.close(writer)
    return writer


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("full", "No space left on device"),
        ("read-only", "Bad file descriptor"),
        ("closed", "Bad file descriptor"),
        ("reader gone", "Broken pipe"),
    ],
)
def test_a_descriptor_that_takes_nothing_stops_nobody(
    what: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    number = opened(what, tmp_path / "file")
    passed: list[Event] = []
    events: list[Event] = [Start(TASK, "Layer", 1), Done(TASK), Start(OTHER, "Layer"), Done(OTHER)]
    with ProgressLines(number, passed.append) as sink:
        for event in events:
            sink(event)
    assert passed == events
    assert [record.getMessage() for record in caplog.records] == [
        f"no more progress is written for the other program: {reason}"
    ]
    if what != "closed":
        os.close(number)


@pytest.mark.parametrize("verb", [["upgrade"], ["switch", "quay.io/example/os"]], ids=" ".join)
@pytest.mark.parametrize(
    ("number", "told"),
    [
        ("0", "Cannot use fd 0 for progress JSON"),
        ("2", "Cannot use fd 2 for progress JSON"),
        ("002", "Cannot use fd 2 for progress JSON"),
        ("-1", "'-1' is not the number of a descriptor"),
        ("4294967296", "'4294967296' is not the number of a descriptor"),
        ("9" * 5000, f"'{'9' * 39} is not the number of a descriptor"),
        ("three", "'three' is not the number of a descriptor"),
        ("٣", "'٣' is not the number of a descriptor"),
        ("", "the value is empty"),
    ],
)
def test_numbers_that_are_wrong_usage(
    verb: list[str], number: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*verb, "--progress-fd", number]) == 2
    assert capsys.readouterr().err.startswith(f"error: argument --progress-fd: {told}")


@pytest.mark.parametrize("number", [3, 77, 4294967295])
def test_a_descriptor_that_is_not_open_does_not_decide(number: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bootc", "upgrade", f"--progress-fd={number}"],
        env={**os.environ, "container": "podman"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    warning, error = done.stderr.splitlines()
    assert warning.startswith("warning: no more progress is written for the other program: ")
    assert error == "error: Detected container; this command requires a booted host system."
