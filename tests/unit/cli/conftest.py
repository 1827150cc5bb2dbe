"""The command in this process: what it prints, and its exit code."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bootc.cli import main as cli

#: Runs ``bootc`` with these arguments; returns exit code, standard output, standard error.
Bootc = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bootc(capsys: pytest.CaptureFixture[str]) -> Bootc:
    """Run the command."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run
