"""The table of the boot matrix, and which tests a run takes; nothing here needs a machine."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matrix_run
import pytest
import versions
from matrix import CELLS, Cell, Column, Outcome, Results, Row, Word, table

TOP = Path(__file__).parents[2]
ONE = Row("one, UEFI", "grub", ("package-a", "package-b"))
TWO = Row("two, BIOS", "qemu", ("package-c",))
OF_ONE = Cell(ONE, Column.TYPE1, "test_x.py::test_a[type1]", often=True)
OTHER_OF_ONE = Cell(ONE, Column.UKI, "test_x.py::test_a[uki]")
OF_TWO = Cell(TWO, Column.TYPE1, "test_x.py::test_b")
RESULTS = Results(
    "0123456789ab",
    "2026-11-30",
    "Linux 6.12, QEMU 10.0.2, emulated (TCG)",
    {
        "grub": {"package-a": "1.0-1", "package-b": "2+3"},
        "qemu": {"package-a": "4", "package-c": "unknown"},
    },
)


def test_the_table() -> None:
    results = RESULTS.with_outcome(OF_ONE, Outcome(Word.PASSED, 311.6))
    results = results.with_outcome(OF_TWO, Outcome(Word.FAILED, 40))
    assert table(results, (OF_ONE, OTHER_OF_ONE, OF_TWO)) == (
        "Run at commit 0123456789ab on 2026-11-30, with Linux 6.12, QEMU 10.0.2, emulated (TCG).\n"
        "\n"
        "| | Type 1 | UKI | loader's packages |\n"
        "|---|---|---|---|\n"
        "| one, UEFI | passed, 312 s | not run | package-a 1.0-1, package-b 2+3 |\n"
        "| two, BIOS | failed, 40 s | \N{EN DASH} | package-c unknown |\n"
    )


def test_results_are_kept() -> None:
    results = RESULTS.with_outcome(OF_ONE, Outcome(Word.PASSED, 311.6))
    assert Results.from_json(results.to_json()) == results
    for other in ("", "[]", "{}", results.to_json().replace("passed", "good")):
        assert Results.from_json(other) is None


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"date": "2026-11-29"}, True),
        ({"commit": "ba9876543210"}, False),
        ({"loaders": {**RESULTS.loaders, "grub": {"package-a": "1.0-2"}}}, False),
        ({"machines": "Linux 6.13"}, False),
    ],
)
def test_a_run_continues_one_of_the_same(changes: dict[str, object], is_same: bool) -> None:
    done = Outcome(Word.PASSED, 1)
    earlier = replace(RESULTS.with_outcome(OF_ONE, done), **changes)
    continued = RESULTS.continuing(earlier)
    assert continued == (RESULTS.with_outcome(OF_ONE, done) if is_same else RESULTS)


def test_a_tree_with_changes_is_not_the_same_as_itself() -> None:
    changed = replace(RESULTS, commit="0123456789ab (with changes)")
    assert changed.continuing(changed.with_outcome(OF_ONE, Outcome(Word.PASSED, 1))) == changed
    assert RESULTS.continuing(None) == RESULTS


def report(when: str, outcome: str, duration: float = 1.0) -> pytest.TestReport:
    """Return the report of a phase of the first cell."""
    return pytest.TestReport(
        CELLS[0].node,
        ("", 0, ""),
        {},
        outcome,  # type: ignore[arg-type]
        None,
        when,  # type: ignore[arg-type]
        duration=duration,
    )


@pytest.mark.parametrize(
    ("reports", "outcome"),
    [
        ([("setup", "passed"), ("call", "passed"), ("teardown", "passed")], "passed, 3 s"),
        ([("setup", "passed"), ("call", "failed"), ("teardown", "passed")], "failed, 3 s"),
        ([("setup", "failed"), ("teardown", "passed")], "failed, 2 s"),
        ([("setup", "passed"), ("call", "passed"), ("teardown", "failed")], "failed, 3 s"),
        ([("setup", "passed"), ("call", "skipped"), ("teardown", "passed")], "not run"),
        ([("setup", "skipped"), ("teardown", "passed")], "not run"),
        # Of pytest-xdist, when a process has crashed.
        ([("???", "failed")], "failed, 1 s"),
        ([("setup", "passed"), ("???", "failed")], "failed, 2 s"),
        ([("setup", "passed")], "not run"),
    ],
)
def test_the_word_of_a_cell(tmp_path: Path, reports: list[tuple[str, str]], outcome: str) -> None:
    packages = {name: "1" for cell in CELLS for name in cell.row.packages}
    loaders = {cell.row.tree: packages for cell in CELLS}
    path = tmp_path / "build/matrix.md"
    results = replace(RESULTS, loaders=loaders)
    recorder = matrix_run.Recorder(path, results)
    assert path.read_text() == table(results)
    for phase in reports:
        recorder.pytest_runtest_logreport(report(*phase))
    row = next(line for line in path.read_text().splitlines() if "systemd-boot" in line)
    assert row.split(" | ")[1] == outcome
    kept = matrix_run.Recorder(path, results)
    assert kept._results.outcomes == recorder._results.outcomes


def test_every_cell_has_a_test(tmp_path: Path) -> None:
    options = ("-p", "no:cacheprovider", "-n", "0", "-q", "--collect-only")
    matrix = (matrix_run.MATRIX, str(tmp_path / "matrix.md"), "-k", "UEFI or BIOS")
    files = {cell.node.partition("::")[0] for cell in CELLS}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *matrix, *sorted(files)],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
    )
    taken = {line for line in done.stdout.splitlines() if "::" in line}
    assert taken == {cell.node for cell in CELLS}, done.stdout
    assert list(tmp_path.iterdir()) == []


class Taken:
    """The configuration of a run with one option, and what the run leaves out."""

    def __init__(self, option: str) -> None:
        self.hook = self
        self.left: list[str] = []
        self._option = option

    def getoption(self, name: str, default: object) -> object:
        return True if name == self._option else default

    def pytest_deselected(self, items: list[Any]) -> None:
        self.left += [item.nodeid for item in items]


@pytest.mark.parametrize("option", [matrix_run.MATRIX, matrix_run.WITHOUT, "none"])
def test_the_tests_that_a_run_takes(option: str) -> None:
    cells, rare = ({c.node for c in chosen} for chosen in (CELLS, matrix_run.RARE))
    nodes = ["tests/unit/test_a.py::test_a", *sorted(cells), "tests/boot/test_grub.py::test_a"]
    items: list[Any] = [SimpleNamespace(nodeid=node) for node in nodes]
    run: Any = Taken(option)
    matrix_run.choose(run, items)
    expected = {matrix_run.MATRIX: cells, matrix_run.WITHOUT: {*nodes} - rare, "none": {*nodes}}
    taken = [item.nodeid for item in items]
    assert taken == [node for node in nodes if node in expected[option]]
    assert {*taken, *run.left} == {*nodes}


def test_a_cell_is_found_by_its_words() -> None:
    cell = next(cell for cell in CELLS if "bios" in cell.test)
    items: list[Any] = [
        SimpleNamespace(nodeid=node, extra_keyword_matches=set())
        for node in (cell.node, "tests/boot/test_grub.py::test_a")
    ]
    for item in items:
        matrix_run.name(item)
    assert [item.extra_keyword_matches for item in items] == [{"GRUB", "BIOS", "Type1"}, set()]


def test_the_cells_that_make_test_boots() -> None:
    often = {str(cell) for cell in CELLS if cell.often}
    assert often == {
        "systemd-boot, UEFI, Type 1",
        "systemd-boot, UEFI, UKI",
        "GRUB, UEFI, Type 1",
        "GRUB, BIOS, Type 1",
    }
    assert len({(cell.row, cell.column) for cell in CELLS}) == len(CELLS)


def test_the_commit(tmp_path: Path) -> None:
    def git(*argv: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        command = ["git", "-C", str(tmp_path), *identity, *argv]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message=a")
    head = git("rev-parse", "HEAD")
    assert versions.commit(tmp_path) == head[:12]
    (tmp_path / "new").touch()
    assert versions.commit(tmp_path) == f"{head[:12]} (with changes)"


def test_the_version_of_a_package() -> None:
    status = "Package: a\nStatus: ok\nVersion: 1:2.0-3\n\nPackage: ab\nVersion: 4~5\nSource: a\n"
    assert [versions.version(status, name) for name in ("a", "ab", "b")] == [
        "1:2.0-3",
        "4~5",
        "unknown",
    ]
    assert re.fullmatch(r"\d\S+", versions.version(versions.status("no such tree"), "dpkg"))


def test_trees_may_have_two_versions_of_a_package() -> None:
    rows = [Row("a", "no such tree", ("dpkg",)), Row("b", "another", ("dpkg", "no-such-package"))]
    dpkg = versions.version(versions.status("no such tree"), "dpkg")
    assert versions.loaders(rows) == {
        "another": {"dpkg": dpkg, "no-such-package": "unknown"},
        "no such tree": {"dpkg": dpkg},
    }
