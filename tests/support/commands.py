"""Fake programs on PATH that write down how they were called.

For tests of what we tell other programs. Where a real program can run, use it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bootc.fs import process

#: Log: the number of arguments, then the arguments, each ended by a NUL.
_SCRIPT = """#!/bin/sh
printf '%s\\0' "$#" "$@" >> '{log}'
cat > '{stdin}'
{body}
"""


class Command:
    """One fake program."""

    def __init__(self, directory: Path, name: str, body: str) -> None:
        self._log = directory / f".{name}.log"
        self._stdin = directory / f".{name}.stdin"
        script = _SCRIPT.format(log=self._log, stdin=self._stdin, body=body)
        (directory / name).write_text(script)
        (directory / name).chmod(0o755)

    @property
    def calls(self) -> list[list[str]]:
        """The arguments of every call so far."""
        if not self._log.exists():
            return []
        words = iter(self._log.read_bytes().decode().split("\0")[:-1])
        return [[next(words) for _ in range(int(count))] for count in words]

    @property
    def stdin(self) -> str:
        """What the last call read."""
        return self._stdin.read_text()


class Commands:
    """A directory of fake programs at the front of PATH."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        directory.mkdir(exist_ok=True)
        self._directory = directory
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)

    def mock(self, name: str, body: str = "") -> Command:
        """Put a program on PATH; ``body`` is the rest of its shell script."""
        return Command(self._directory, name, body)

    def hide_system(self) -> None:
        """Let no other program be found, as on a machine where none is installed.

        The fakes then have to do with what the shell builds in.
        """
        self._monkeypatch.setenv("PATH", str(self._directory))
        self._monkeypatch.setattr(process, "_SYSTEM_PATH", ())
