"""What makes tests pass on one machine and fail on another, as far as a program can see it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]

#: What runs beside a test must end whatever happens. `support.children` sees to it.
STARTS_CHILDREN = {"Popen", "fork", "forkpty", "Process", "create_subprocess_exec"}
#: What only root can arrange has the marker `root`, which runs it as root whoever runs the other
#: tests; `support.rights` makes root obey modes.
ASKS_FOR_ROOT = {"require.root", "os.geteuid"}


def calls(*below: str) -> Iterator[tuple[str, str]]:
    """Every function that is called, as it is written there, and where."""
    for path in sorted(path for name in below for path in (TESTS / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Call):
                yield ast.unparse(node.func), f"{path.relative_to(TESTS)}:{node.lineno}"


def test_what_runs_beside_a_test_has_a_deadline() -> None:
    started = [place for name, place in calls(".") if name.rpartition(".")[2] in STARTS_CHILDREN]
    assert {place.partition(":")[0] for place in started} == {"support/children.py"}, started


def test_who_runs_the_checks_does_not_decide_what_they_check() -> None:
    asked = [place for name, place in calls("unit", "property") if name in ASKS_FOR_ROOT]
    assert asked == []
