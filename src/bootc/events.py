"""The progress of long operations as values.

Long operations take ``sink: Sink`` and call it with events. ``bootc.cli.progress`` renders
them for terminals and as JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

Unit = Literal["bytes", "steps"]

#: The name of the task that fetches a layer is this prefix and the digest of the layer.
LAYER_TASK = "layer:"


@dataclass(frozen=True, slots=True)
class Start:
    """A task begins. ``task`` is a stable name, ``total`` is unknown when ``None``."""

    task: str
    description: str
    total: int | None = None
    unit: Unit = "bytes"


@dataclass(frozen=True, slots=True)
class Progress:
    """The task has done ``done`` units so far (absolute, not a difference)."""

    task: str
    done: int


@dataclass(frozen=True, slots=True)
class Done:
    """The task ended. ``cached`` says there was nothing to do."""

    task: str
    cached: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """A line for the user, on standard output."""

    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A line about the work itself, for example that it waits. It is no part of a result."""

    text: str


Event = Start | Progress | Done | Message | Notice
Sink = Callable[[Event], None]


def null_sink(event: Event) -> None:
    """Drop every event."""


@contextmanager
def stage(sink: Sink, task: str, description: str) -> Iterator[None]:
    """Report a task of unknown length: it begins with the block, and is done if that ends well."""
    sink(Start(task, description))
    yield
    sink(Done(task))
