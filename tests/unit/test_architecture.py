"""The rules of the house that a program can check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from bootc.cli.table import INTERNALS, VERBS

SRC = Path(__file__).parents[2] / "src" / "bootc"

#: What each package may import besides itself (ADR 1). Arrows run downwards only.
GROUND = {"errors", "events", "printable", "sizes"}
MAY_IMPORT = {
    "": GROUND | {"cli"},
    "printable": set(),
    "errors": {"printable"},
    "events": set(),
    "sizes": set(),
    "kernel": {"errors"},
    "formats": {"errors", "printable"},
    "fs": GROUND | {"kernel", "formats"},
    "repository": GROUND | {"kernel", "formats", "fs"},
    "oci": GROUND | {"kernel", "formats", "fs", "repository"},
    "boot": GROUND | {"kernel", "formats", "fs", "repository"},
    "deploy": GROUND | {"kernel", "formats", "fs", "repository", "oci", "boot"},
    "lint": GROUND | {"kernel", "formats", "fs", "repository", "oci", "boot"},
    "build": GROUND | {"kernel", "formats", "fs", "repository", "oci", "boot"},
    "initramfs": {"errors", "kernel", "formats", "repository"},
    "cli": GROUND
    | {"kernel", "formats", "fs", "repository", "oci", "boot", "deploy", "build", "lint"},
}
#: The initramfs step reads these modules only, so that its closure stays small.
INITRAMFS_MODULES = {
    "bootc.formats.cmdline",
    "bootc.formats.security_counter",
    "bootc.formats.security_version",
    "bootc.repository.layout",
    "bootc.repository.mounting",
}
#: Each of these is used in one place only.
SOLE_USERS = {
    "subprocess": {"fs/process.py"},
    "ctypes": {"kernel/"},
    "argparse": {"cli/"},
    # What is imported by a name made at run time is not seen here.
    "importlib": {"cli/"},
}
#: These names of `layout` lead into the state directories of deployments. Who needs something from
#: there asks the modules that own it.
STATE_NAMES = {"STATE", "STATE_DEPLOY", "REMOVED_PREFIX", "state_dir", "origin_name"}
STATE_OWNERS = {
    "deploy/host/statedir.py",
    "deploy/host/statedir_lifecycle.py",
    # It must not import `deploy`.
    "initramfs/setup_root.py",
}
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60


def modules() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(("bootc", *path.relative_to(SRC).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def imports_of(path: Path) -> set[str]:
    """Absolute names of everything a module imports, imports inside functions included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            base = node.module or ""
            for alias in node.names:
                full = f"{base}.{alias.name}"
                is_module = (SRC.parent / Path(*full.split("."))).with_suffix(".py").exists()
                is_package = (SRC.parent / Path(*full.split(".")) / "__init__.py").exists()
                found.add(full if is_module or is_package else base)
    return found


def package_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SRC)))
def test_arrows_run_downwards(path: Path) -> None:
    package = package_of(name_of(path))
    if package == "__main__":
        package = ""
    allowed = MAY_IMPORT[package] | {package}
    for imported in imports_of(path):
        if imported == "bootc" or not imported.startswith("bootc."):
            continue
        assert package_of(imported) in allowed, f"{name_of(path)} must not import {imported}"
        if package == "initramfs" and package_of(imported) in ("formats", "repository"):
            assert imported in INITRAMFS_MODULES, f"{name_of(path)} must not import {imported}"


def test_no_import_ring() -> None:
    graph = {
        name_of(path): {i for i in imports_of(path) if i.startswith("bootc.")} for path in modules()
    }
    verbs = {*VERBS.values(), *INTERNALS.values()}
    graph["bootc.cli.table"].update(f"bootc.cli.verbs.{verb}" for verb in verbs)
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import ring: {' > '.join((*trail, module))}"
        if module in done:
            return
        for below in sorted(graph.get(module, ())):
            visit(below, (*trail, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize(("library", "homes"), SOLE_USERS.items())
def test_each_dangerous_library_has_one_home(library: str, homes: set[str]) -> None:
    for path in modules():
        relative = str(path.relative_to(SRC))
        users = {i.split(".")[0] for i in imports_of(path)}
        if library in users:
            assert any(relative.startswith(home) for home in homes), f"{relative} uses {library}"


#: Modules that one package above must not use, and why.
NOT_FOR = {
    # The library tells the journal where it carried out a plan, whoever called it.
    "bootc.deploy.journal": "cli/",
}


@pytest.mark.parametrize(("module", "users"), NOT_FOR.items())
def test_what_the_library_does_itself(module: str, users: str) -> None:
    for path in modules():
        relative = str(path.relative_to(SRC))
        assert not (relative.startswith(users) and module in imports_of(path)), relative


def test_state_directories_have_one_owner() -> None:
    users = {
        str(path.relative_to(SRC))
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and ast.unparse(node.value) == "layout"
        and node.attr in STATE_NAMES
    }
    assert users == STATE_OWNERS


def test_only_main_exits() -> None:
    for path in modules():
        if path.relative_to(SRC).parts[:1] == ("__main__.py",) or path.match("cli/main.py"):
            continue
        if path.match("initramfs/setup_root.py"):
            continue
        assert "sys.exit" not in path.read_text("utf-8"), path


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SRC)))
def test_size_bars(path: Path) -> None:
    source = path.read_text("utf-8")
    assert len(source.splitlines()) <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{path}:{node.lineno} {node.name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SRC)))
def test_package_inits_stay_empty(path: Path) -> None:
    if path.name == "__init__.py" and path.parent != SRC:
        assert path.read_text("utf-8") == ""


#: Functions that call themselves, and what bounds how deep.
MAY_RECUR = {
    # Depth of the groups of a pattern, pathregex.MAX_DEPTH.
    "formats/automaton.py": {"Automaton._add", "Automaton._repeat"},
    "formats/pathregex.py": {
        *("_Parser._choice", "_Parser._sequence", "_Parser._repeated", "_Parser._atom"),
        *("Simulation._advance", "Simulation._repeat", "Simulation._looks"),
    },
    # Logarithm of a file's size.
    "formats/verity.py": {"VerityHasher._push", "VerityHasher._push_run"},
    # Our own tables: a key that they do not have ends it.
    "deploy/install/config.py": {"_check_table", "_merge"},
    "cli/options.py": {"_add_commands"},
    # Records of our own make.
    "cli/render/structured.py": {"_yaml_lines"},
}


def calls_of(tree: ast.Module) -> dict[str, set[str]]:
    """Return which functions and methods of a module call which others of it, by name."""
    calls: dict[str, set[str]] = {}

    def visit(node: ast.AST, owner: str) -> None:
        for below in ast.iter_child_nodes(node):
            if isinstance(below, ast.ClassDef):
                visit(below, f"{below.name}.")
            elif isinstance(below, ast.FunctionDef):
                found = calls.setdefault(f"{owner}{below.name}", set())
                for call in (n.func for n in ast.walk(below) if isinstance(n, ast.Call)):
                    if isinstance(call, ast.Name):
                        found.add(call.id)
                    elif isinstance(call, ast.Attribute) and isinstance(call.value, ast.Name):
                        found.add(f"{owner}{call.attr}" if call.value.id in ("self", "cls") else "")
                visit(below, owner)
            else:
                visit(below, owner)

    visit(tree, "")
    return calls


def recursive(calls: dict[str, set[str]]) -> set[str]:
    found = set()
    for name in calls:
        seen: set[str] = set()
        pending = [*calls[name]]
        while pending:
            called = pending.pop()
            if called not in seen:
                seen.add(called)
                pending += calls.get(called, ())
        if name in seen:
            found.add(name)
    return found


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_no_function_calls_itself(path: Path) -> None:
    """Names, values and references nest deeper than Python calls; loops do not mind."""
    found = recursive(calls_of(ast.parse(path.read_bytes())))
    assert found == MAY_RECUR.get(str(path.relative_to(SRC)), set())
