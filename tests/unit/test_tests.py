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
#: How a module of `support` names the trees that only `make test` makes.
READS_A_MADE_TREE = '/ "build"'


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


def support_imports(path: Path) -> set[str]:
    """Name the modules of `support` that a file imports."""
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module == "support":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("support."):
            names.add(str(node.module).split(".")[1])
    return names


def test_the_first_checks_need_no_tree_that_is_made_later() -> None:
    support = {path.stem: path for path in (TESTS / "support").glob("*.py")}
    needs = {name for name, path in support.items() if READS_A_MADE_TREE in path.read_text()}
    assert "grubtree" in needs
    for _ in support:
        needs |= {name for name, path in support.items() if support_imports(path) & needs}
    paths = [path for part in ("unit", "property") for path in (TESTS / part).rglob("*.py")]
    assert [path.name for path in paths if support_imports(path) & needs] == []
