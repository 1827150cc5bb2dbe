"""Progress for people: bars on a terminal, plain lines elsewhere.

If ``rich`` is installed, a terminal gets its bars. Everything else (a log, a serial console, a
pipe) gets plain lines: one when a task starts, one for each tenth of a long task, and one with
the time that it took. Progress and notices go to standard error, and messages for the user to
standard output. Neither changes what a command does (:mod:`bootc.cli.streams`).
"""

from __future__ import annotations

import importlib.util
import logging
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import IO, TYPE_CHECKING, Protocol, cast

from bootc.cli.streams import Output, SideStream
from bootc.events import Done, Event, Message, Notice, Progress, Sink, Start
from bootc.fs.interruption import left_to_this_thread
from bootc.printable import printable
from bootc.sizes import human_size

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_log = logging.getLogger(__name__)

#: A shorter task prints no tenths.
_TENTHS_AFTER_S = 2.0


class Renderer(Protocol):
    """A sink that may draw on the screen as long as it is entered."""

    def __call__(self, event: Event) -> None:
        """Show one event."""


class Lines:
    """Shows each event as a plain line."""

    def __init__(self, stream: SideStream, messages: Output) -> None:
        self._stream = stream
        self._messages = messages
        self._open: dict[str, tuple[Start, float, int]] = {}

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case Message(text):
                self._messages.message(text)
            case Notice(text):
                self._stream.line(text)
            case Start(task, description, total, unit):
                self._open[task] = (event, time.monotonic(), 0)
                size = "" if total is None or unit != "bytes" else f" ({human_size(total)})"
                self._stream.line(f"{description}{size} …")
            case Progress(task, done):
                self._progress(task, done)
            case Done(task, cached):
                start, begun, _ = self._open.pop(task, (None, 0.0, 0))
                if start is not None:
                    took = "already there" if cached else f"{time.monotonic() - begun:.1f} s"
                    self._stream.line(f"{start.description}: done ({took})")

    def _progress(self, task: str, done: int) -> None:
        if task not in self._open:
            return
        start, begun, shown = self._open[task]
        if not start.total or time.monotonic() - begun < _TENTHS_AFTER_S:
            return
        tenth = min(10 * done // start.total, 10)
        if tenth > shown:
            self._open[task] = (start, begun, tenth)
            if tenth < 10:
                self._stream.line(f"{start.description}: {10 * tenth} %")


class Bars:
    """Draws bars on a terminal with rich, from the first task on; messages appear above them.

    If rich fails for any reason, plain lines follow.
    """

    def __init__(self, stream: SideStream, messages: Output) -> None:
        self._stream = stream
        self._messages = messages
        self._lines: Lines | None = None
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            with suppress(Exception):
                self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self._lines is None:
            try:
                self._draw(event)
                return
            except Exception as exc:  # noqa: BLE001  (a drawing must never end an update)
                _log.debug("rich failed: %r", exc)
                self._lines = Lines(self._stream, self._messages)
        self._lines(event)

    def _draw(self, event: Event) -> None:
        match event:
            case Message(text):
                self._say(text)
            case Notice(text):
                self._notice(text)
            case Start(task, description, total):
                if self._bars is None:
                    self._bars = _start_bars(self._stream)
                self._tasks[task] = self._bars.add_task(printable(description), total=total)
            case Progress(task, done):
                self._update(task, done)
            case Done(task):
                self._update(task, None)
                self._tasks.pop(task, None)

    def _say(self, text: str) -> None:
        if self._bars is not None and self._messages.isatty():
            _print_above(self._bars, text)
        else:
            self._messages.message(text)

    def _notice(self, text: str) -> None:
        if self._bars is None:
            self._stream.line(text)
        else:
            _print_above(self._bars, text)

    def _update(self, task: str, done: int | None) -> None:
        """Move a bar, or with ``done`` None to its end."""
        if self._bars is None or task not in self._tasks:
            return
        bar = self._tasks[task]
        if done is None:
            whole = self._bars.tasks[bar].total or 1
            self._bars.update(bar, total=whole, completed=whole)
        else:
            self._bars.update(bar, completed=done)


def _print_above(bars: RichProgress, text: str) -> None:
    bars.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def _start_bars(stream: SideStream) -> RichProgress:
    # Only a terminal with something to show pays for this import.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bars = Progress(
        # rich would take a name in brackets for markup.
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(file=cast("IO[str]", stream)),
        refresh_per_second=5,
        # Results go to standard output unchanged. rich would wrap them, and its stand-in says
        # that it is not a terminal.
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with left_to_this_thread():
        bars.start()
    return bars


def renderer(stream: SideStream, messages: Output) -> AbstractContextManager[Renderer]:
    """Return the renderer for a stream. Enter it before sending events."""
    if stream.isatty() and importlib.util.find_spec("rich") is not None:
        return Bars(stream, messages)
    return nullcontext(Lines(stream, messages))


def messages_only(sink: Sink) -> Sink:
    """Return a sink that passes on messages and notices, but no progress."""

    def show(event: Event) -> None:
        if isinstance(event, Message | Notice):
            sink(event)

    return show
