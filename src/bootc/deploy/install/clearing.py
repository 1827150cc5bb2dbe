"""Removing the content of file systems: what a user wants replaced, and what a failure left.

An installation writes the names that it creates into a file in the root file system, and removes
the file after the boot entry is written. So the next run knows the leftovers of a run that was
killed. Names that existed before are never in the file.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from typing import Self

from bootc.deploy.install import aleph
from bootc.errors import Error, doing, one_line
from bootc.events import Message, Sink
from bootc.fs import atomic
from bootc.fs.descent import MountPoint
from bootc.fs.dir import Dir
from bootc.fs.interruption import undisturbed
from bootc.repository import layout

_log = logging.getLogger(__name__)

#: The file with the names.
UNFINISHED = ".bootc-unfinished"
#: What an installation creates in the physical root, in the order in which it is removed: without
#: its state a deployment no longer counts as one that boots.
_CREATED = ("state", layout.REPOSITORY, "ostree", "boot", aleph.NAME)
_MAX_BYTES = 1 << 12


def leftovers(root: Dir) -> list[str]:
    """Return the names that an unfinished installation left in a root file system."""
    try:
        lines = root.read_bytes(UNFINISHED, _MAX_BYTES).decode("utf-8", "replace").split("\n")
    except FileNotFoundError:
        return []
    return [*(name for name in _CREATED if name in lines), UNFINISHED]


def remove(directory: Dir, names: Iterable[str]) -> None:
    """Remove entries of a directory with everything below them, except mount points.

    Raises:
        OSError: an entry cannot be removed. All others are.
    """
    failure: OSError | None = None
    for name in names:
        with doing(f"Removing {directory.path}/{name}"):
            try:
                directory.remove_tree(name)
            except MountPoint:
                continue
            except OSError as exc:
                failure = failure or exc
    if failure is not None:
        raise failure


class UndoneUnlessKept:
    """Removes what an installation creates in a root file system, unless :meth:`keep` is called."""

    __slots__ = ("_names", "_root", "_sink", "is_kept")

    def __init__(self, root: Dir, sink: Sink) -> None:
        self._root = root
        self._sink = sink
        self.is_kept = False
        self._names: list[str] = []

    def __enter__(self) -> Self:
        self._names = [name for name in _CREATED if not self._root.exists(name)]
        text = "".join(f"{name}\n" for name in self._names)
        atomic.write_file(self._root, UNFINISHED, text.encode(), durable=True)
        return self

    def keep(self) -> None:
        """Keep everything from now on, also after a failure."""
        self.is_kept = True
        with doing(f"Removing {UNFINISHED}"):
            self._root.unlink(UNFINISHED)
            os.fsync(self._root.fileno())

    def __exit__(self, kind: object, exc: BaseException | None, trace: object) -> None:
        if exc is None or self.is_kept:
            return
        with undisturbed():
            try:
                remove(self._root, self._names)
                with contextlib.suppress(FileNotFoundError):
                    self._root.unlink(UNFINISHED)
            except (Error, OSError) as failure:
                # The first failure is the one to report.
                _log.warning("an unfinished installation is left: %s", one_line(failure))
            else:
                path = self._root.path
                self._sink(Message(f"Removed the unfinished installation from {path}"))
