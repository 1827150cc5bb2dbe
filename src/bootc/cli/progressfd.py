"""Progress for programs: JSON lines on a descriptor that ``--progress-fd`` names.

Each line is one canonical JSON object. The first one says the version of the format. The others
describe the layers of a pull: those in progress, and how many are done. A program that reads the
lines can stop or fall behind at any time. The command never waits for it, except for the last line,
and never fails because of it.

- An event that says only how far a layer is gets no line if the last line is younger than
  :data:`_PAUSE_S`.
- If the reader is slow, it misses lines between, but no part of a line.

Source: bootc, "--progress-fd JSON-lines protocol", API 0.1.0.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import select
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from bootc.cli.render.structured import render_json
from bootc.cli.streams import WARNING_PATIENCE_S
from bootc.events import LAYER_TASK, Done, Event, Progress, Sink, Start

_log = logging.getLogger(__name__)

VERSION = "0.1.0"
_PAUSE_S = 0.2
_SHOWN_OF_ID = 20
#: A pipe that poll(2) reports as writable takes this much without waiting (pipe(7)).
_AT_ONCE_BYTES = select.PIPE_BUF


@dataclass(slots=True)
class _Layer:
    total: int | None
    done: int = 0


class ProgressLines:
    """A sink that writes the progress of a pull to a descriptor, and passes all events on.

    Leave it to write the last line.

    Args:
        number: The descriptor. The command opened nothing yet, so it is the caller's. If it is
            closed or read-only, a warning says so and no line is written.
        sink: Receives all events.
    """

    def __init__(self, number: int, sink: Sink) -> None:
        self._sink = sink
        self._layers: dict[str, _Layer] = {}
        self._steps = 0
        self._cached = 0
        self._written_at: float | None = None
        #: A line that the reader has not taken completely.
        self._rest = b""
        #: There is a state to tell that no line has told.
        self._untold = False
        self._fd: int | None = None
        try:
            self._fd = _own(number)
        except OSError as exc:
            self._give_up(exc)

    def __enter__(self) -> ProgressLines:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._write(patience_s=WARNING_PATIENCE_S)
        self._close()

    def __call__(self, event: Event) -> None:
        """Pass an event on, and write a line if it is about a layer."""
        self._sink(event)
        match event:
            case Start(task, _, total, "bytes") if task.startswith(LAYER_TASK):
                self._layers[task] = _Layer(total)
                self._tell(lossy=True)
            case Progress(task, done) if task in self._layers:
                self._layers[task].done = done
                self._tell(lossy=True)
            case Done(task, cached) if task in self._layers:
                del self._layers[task]
                self._steps += not cached
                self._cached += cached
                self._tell(lossy=False)

    def _tell(self, *, lossy: bool) -> None:
        now, before = time.monotonic(), self._written_at
        if lossy and not self._untold and before is not None and now - before < _PAUSE_S:
            return
        self._untold = True
        self._write(patience_s=0)

    def _write(self, patience_s: float) -> None:
        """Write the rest of the last line and then the state, as far as the reader takes them."""
        deadline = time.monotonic() + patience_s
        try:
            while self._fd is not None and (self._rest or self._untold):
                if not self._rest:
                    self._rest, self._untold = self._line(), False
                    self._written_at = time.monotonic()
                ready = select.poll()
                ready.register(self._fd, select.POLLOUT)
                if not ready.poll(1000 * max(0.0, deadline - time.monotonic())):
                    return
                try:
                    self._rest = self._rest[os.write(self._fd, self._rest[:_AT_ONCE_BYTES]) :]
                except BlockingIOError:
                    return
        except OSError as exc:
            self._give_up(exc)

    def _line(self) -> bytes:
        lines: list[dict[str, Any]] = []
        if self._written_at is None:
            lines.append({"type": "Start", "version": VERSION})
        lines.append(self._state())
        return "".join(f"{render_json(line)}\n" for line in lines).encode()

    def _state(self) -> dict[str, Any]:
        subtasks = [
            {
                "subtask": "composefs_layer",
                "description": f"Layer: {task.removeprefix(LAYER_TASK)[:_SHOWN_OF_ID]}",
                "id": task.removeprefix(LAYER_TASK),
                "bytesCached": 0,
                "bytes": layer.done,
                "bytesTotal": layer.total or 0,
            }
            for task, layer in self._layers.items()
        ]
        layers = self._layers.values()
        known = all(layer.total is not None for layer in layers)
        return {
            "type": "ProgressBytes",
            "task": "pulling",
            "description": "Pulling composefs image",
            "id": "composefs-pull",
            "bytesCached": 0,
            "bytes": sum(layer.done for layer in layers),
            "bytesTotal": sum(layer.total or 0 for layer in layers) if known else 0,
            "stepsCached": self._cached,
            "steps": self._steps,
            "stepsTotal": 0,
            "subtasks": subtasks,
        }

    def _give_up(self, exc: OSError) -> None:
        self._close()
        _log.warning("no more progress is written for the other program: %s", exc.strerror)

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _own(number: int) -> int:
    """Return a copy of a descriptor that the programs bootc starts do not inherit.

    Raises:
        OSError: it is not open for writing.
    """
    try:
        fd = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
    except OverflowError:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from None
    try:
        os.write(fd, b"")
    except OSError:
        os.close(fd)
        raise
    return fd
