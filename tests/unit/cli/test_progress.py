from __future__ import annotations

import io

import pytest

from bootc.cli import progress
from bootc.cli.streams import Output, SideStream
from bootc.events import Done, Event, Message, Notice, Progress, Start


def shown(monkeypatch: pytest.MonkeyPatch, *events: tuple[float, Event]) -> list[str]:
    """What plain lines show when each event comes at its second."""
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    lines = progress.Lines(SideStream(stream), Output(stream))
    for second, event in events:
        clock[0] = second
        lines(event)
    return stream.getvalue().splitlines()


def test_a_task_says_when_it_starts_and_how_long_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(
        monkeypatch,
        (0, Start("format", "Making file systems", unit="steps")),
        (1.5, Done("format")),
    ) == ["Making file systems …", "Making file systems: done (1.5 s)"]


def test_tenths_are_shown_of_long_tasks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(
        monkeypatch,
        (0, Start("layer", "Layer 1", total=2048)),
        (1, Progress("layer", 1024)),
        (3, Progress("layer", 1500)),
        (4, Progress("layer", 1501)),
        (5, Progress("layer", 2048)),
        (6, Done("layer")),
    ) == ["Layer 1 (2.0 KiB) …", "Layer 1: 70 %", "Layer 1: done (6.0 s)"]


def test_what_was_there_already_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, (0, Start("layer", "Layer 1")), (0, Done("layer", cached=True))) == [
        "Layer 1 …",
        "Layer 1: done (already there)",
    ]


def test_messages_pass_through_and_unknown_tasks_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert shown(
        monkeypatch, (0, Message("Bootloader: systemd")), (0, Progress("x", 1)), (0, Done("x"))
    ) == ["Bootloader: systemd"]


def test_messages_go_where_output_goes() -> None:
    err, out = io.StringIO(), io.StringIO()
    with progress.renderer(SideStream(err), Output(out)) as sink:
        sink(Message("Installation complete!"))
        sink(Start("x", "X"))
    assert (err.getvalue(), out.getvalue()) == ("X …\n", "Installation complete!\n")


def test_quiet_is_messages_only() -> None:
    shown: list[Event] = []
    sink = progress.messages_only(shown.append)
    for event in (Start("a", "A"), Progress("a", 1), Message("done"), Done("a")):
        sink(event)
    assert shown == [Message("done")]


def test_a_drawing_that_fails_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain lines go on, also for tasks that began as bars."""

    class Broken:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    monkeypatch.setattr(progress, "_start_bars", lambda stream: Broken())
    err, out = io.StringIO(), io.StringIO()
    with progress.Bars(SideStream(err), Output(out)) as sink:
        sink(Message("before"))
        sink(Start("a", "A"))
        sink(Done("a"))
        sink(Message("after"))
    assert out.getvalue() == "before\nafter\n"
    assert err.getvalue().startswith("A …\nA: done (")


def test_what_is_shown_has_no_control_characters() -> None:
    err, out = io.StringIO(), io.StringIO()
    with progress.renderer(SideStream(err), Output(out)) as sink:
        sink(Start("x", "Layer \x1b[2J\n"))
        sink(Message("a\rb"))
    assert (err.getvalue(), out.getvalue()) == ("Layer \\x1b[2J\\n …\n", "a\\rb\n")


@pytest.mark.parametrize("kind", [progress.Lines, progress.Bars])
def test_notices_stay_off_standard_output(kind: type[progress.Lines | progress.Bars]) -> None:
    err, out = io.StringIO(), io.StringIO()
    sink = kind(SideStream(err), Output(out))
    sink(Notice("Waiting for process 1"))
    progress.messages_only(sink)(Notice("\x1b[2J"))
    assert (err.getvalue(), out.getvalue()) == ("Waiting for process 1\n\\x1b[2J\n", "")
