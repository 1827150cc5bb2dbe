"""The file that a command writes its result to. Afterwards it is complete, or unchanged."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from bootc.cli.options import Context
from bootc.errors import UsageError, doing

#: The name of standard output on a command line.
STDOUT = "-"


class Writable(Protocol):
    """Takes a result piece by piece."""

    def write(self, data: bytes, /) -> object:
        """Write all of it."""


class _Stdout:
    """Takes a result to standard output."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def write(self, data: bytes, /) -> None:
        self._context.write_bytes(data)


@contextmanager
def result_file(path: str, context: Context) -> Iterator[Writable]:
    """Open the file for a result.

    A regular file gets its name or its new content when the block ends. If the block fails, the
    file remains unchanged. Links are followed. Devices and pipes are written to directly.

    Args:
        path: The file, or :data:`STDOUT`.
        context: The context of the command.

    Raises:
        UsageError: the path is empty.
        OSError: the file cannot be written.
    """
    if not path:
        raise UsageError("the name of the file to write is empty", hint="- is standard output")
    with doing(f"Writing {path}"):
        info = _stat(path)
        if path == STDOUT or (info is not None and _is_stdout(info)):
            yield _Stdout(context)
            return
        # A path below /proc/PID/fd may lead to a file that has another name by now, or no name.
        target = os.path.realpath(path)
        if info is None or (stat.S_ISREG(info.st_mode) and _names(target, info)):
            with _whole(target, info) as file:
                yield file
            return
        with open(path, "wb", buffering=0) as file:
            yield _InPlace(file.fileno())


class _InPlace:
    """Takes a result to a device or a pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write(self, data: bytes, /) -> None:
        # Here and below: verbs import this module for their help, too, which writes no file.
        from bootc.fs.atomic import write_all

        write_all(self._fd, data)


@contextmanager
def _whole(path: str, before: os.stat_result | None) -> Iterator[Writable]:
    from bootc.fs.atomic import Tmpfile
    from bootc.fs.dir import Dir

    directory, name = os.path.split(path)
    with Dir.open(directory) as parent, Tmpfile.create(parent) as unnamed:
        yield unnamed
        if before is not None:
            os.fchmod(unnamed.fileno(), stat.S_IMODE(before.st_mode))
        os.fsync(unnamed.fileno())
        unnamed.replace(parent, name)


def _stat(path: str) -> os.stat_result | None:
    with suppress(FileNotFoundError):
        return os.stat(path)
    return None


def _is_stdout(info: os.stat_result) -> bool:
    with suppress(OSError):  # standard output may be closed
        return os.path.samestat(info, os.fstat(1))
    return False


def _names(path: str, info: os.stat_result) -> bool:
    found = _stat(path)
    return found is not None and os.path.samestat(found, info)
