"""The command in this process: what it prints, and its exit code."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from bootc.cli import main as cli

#: Runs ``bootc`` with these arguments; returns exit code, standard output, standard error.
Bootc = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bootc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bootc:
    """Run the command without what it sets up for the whole process."""
    monkeypatch.setattr(cli.signal, "signal", lambda *a: None)
    monkeypatch.setattr(cli.gc, "set_threshold", lambda *a: None)
    monkeypatch.setattr(logging, "basicConfig", lambda **k: None)

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run
