"""What the tutorials show is what happens."""

from __future__ import annotations

import doctest
import logging
from pathlib import Path

import pytest

#: Those in Python; the commands of the others are tested like those of how-tos.
TUTORIALS = sorted(
    path
    for path in (Path(__file__).parents[2] / "docs/tutorial").glob("*.md")
    if ">>> " in path.read_text("utf-8")
)


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.name)
def test_every_example_runs(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    failed, tried = doctest.testfile(str(path), module_relative=False, encoding="utf-8")
    assert (failed, tried > 10) == (0, True)
