"""Runs the boot matrix: which of its cells a run of pytest takes, and the table of what they did.

``--boot-matrix FILE`` runs only cells, and keeps their table in FILE, and the results beside it in
FILE with the suffix ``.json``. Both are written after every cell. A later run at the same commit
keeps the results of the cells that it does not run.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import versions
from matrix import CELLS, Cell, Outcome, Results, Word, table

MATRIX, WITHOUT = "--boot-matrix", "--without-boot-all"
_BY_NODE = {cell.node: cell for cell in CELLS}
RARE = tuple(cell for cell in CELLS if not cell.often)


def add_options(parser: pytest.Parser) -> None:
    """Add the options of the boot matrix to pytest's command line."""
    group = parser.getgroup("boot matrix")
    group.addoption(
        MATRIX, type=Path, metavar="FILE", help="run cells only, and write their table to FILE"
    )
    group.addoption(
        WITHOUT, action="store_true", help="leave out the cells that only make boot-all runs"
    )


def name(item: pytest.Item) -> None:
    """Let ``-k`` find a cell by the words of its row and column."""
    if cell := _BY_NODE.get(item.nodeid):
        item.extra_keyword_matches.update(cell.keywords)


def choose(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the options leave out; pytest counts these tests as deselected."""
    rare = {cell.node for cell in RARE} if config.getoption(WITHOUT, False) else set()
    only = _BY_NODE.keys() if config.getoption(MATRIX, None) else {item.nodeid for item in items}
    keep = only - rare
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in keep])
    items[:] = [item for item in items if item.nodeid in keep]


def register(config: pytest.Config) -> None:
    """Have the process that collects the results, and no other, report on the matrix."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    if is_worker or config.getoption("collectonly"):
        return
    if path := config.getoption(MATRIX, None):
        config.pluginmanager.register(Recorder(path, versions.now()))
    elif config.getoption(WITHOUT, False):
        config.pluginmanager.register(Reminder())


class Reminder:
    """Says at the end which cells were left out."""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        names = "".join(f"\n  {cell}" for cell in RARE)
        terminalreporter.write_line(
            f"{len(RARE)} of {len(CELLS)} boot paths were left to make boot-all:{names}"
        )


class Recorder:
    """Writes the table, at the start and after each cell."""

    def __init__(self, path: Path, results: Results) -> None:
        self._path = path
        self._kept = path.with_suffix(".json")
        earlier = Results.from_json(self._kept.read_text()) if self._kept.exists() else None
        self._results = results.continuing(earlier)
        self._seconds: dict[Cell, float] = {}
        self._words: dict[Cell, Word] = {}
        self._write()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take a phase of a test: its fixtures, its call, or what ends its fixtures."""
        cell = _BY_NODE.get(report.nodeid)
        if cell is None:
            return
        if report.when == "setup":  # a process that crashed may have begun another time
            self._seconds[cell], self._words[cell] = 0.0, Word.NOT_RUN
        self._seconds[cell] = self._seconds.get(cell, 0.0) + report.duration
        if report.failed:
            self._words[cell] = Word.FAILED
        elif report.passed and report.when == "call":
            self._words[cell] = Word.PASSED
        if report.failed or report.when == "teardown":
            outcome = Outcome(self._words[cell], self._seconds[cell])
            self._results = self._results.with_outcome(cell, outcome)
            self._write()

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Show the table."""
        terminalreporter.section("boot matrix")
        terminalreporter.write(table(self._results))
        terminalreporter.write_line(f"The table is in {self._path}.")

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for path, text in (
            (self._kept, self._results.to_json()),
            (self._path, table(self._results)),
        ):
            unfinished = path.with_name(f"{path.name}.new")
            unfinished.write_text(text)
            unfinished.replace(path)
