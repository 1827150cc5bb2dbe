"""What `make demo` and `make test` need: installed on Debian, named elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from support.commands import Commands

PROGRAM = Path(__file__).parents[2] / "tools/host-packages"


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Programs that are everything this machine has."""
    commands = Commands(tmp_path / "bin", monkeypatch)
    for name in ("bash", "cat", "env", "id"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name) or "/nowhere")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return commands


def run() -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", PROGRAM], capture_output=True, text=True, check=False)


def needed() -> dict[str, str]:
    """Each package, and the program it is known by elsewhere."""
    table = PROGRAM.read_text().split("needed='\n")[1].split("\n'\n")[0]
    rows = [line.split(maxsplit=2) for line in table.splitlines()]
    return {package: program for package, program, _ in rows}


def test_elsewhere_what_is_missing_is_named(commands: Commands) -> None:
    there = [program for program in needed().values() if program[0] not in "-/"]
    for program in set(there) - {"umoci", "mcopy"}:
        commands.mock(program)
    done = run()
    assert done.returncode == 1
    assert done.stdout == ""
    named = re.findall(r"^  (\S+) .*\(in Debian: (\S+)\)$", done.stderr, re.MULTILINE)
    assert [name for name in named if not name[0].startswith("/")] == [
        ("umoci", "umoci"),
        ("mcopy", "mtools"),
    ]
    assert done.stderr.endswith("host-packages: this is no Debian; install them by its own means\n")


@pytest.mark.parametrize("root", [True, False])
def test_on_debian_it_is_installed(commands: Commands, tmp_path: Path, root: bool) -> None:
    commands.mock("dpkg-query", '[ "$3" = mtools ] || printf installed')
    (tmp_path / "bin/id").unlink()
    commands.mock("id", f"echo {0 if root else 1000}")
    apt = commands.mock("apt-get")
    sudo = commands.mock("sudo", 'exec "$@"')
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "These Debian packages are needed and will be installed:",
        "  mtools                    looks into EFI system partitions without mounting them",
    ]
    assert [call[0] for call in apt.calls] == ["update", "install"]
    assert apt.calls[1][-1] == "mtools"
    assert len(sudo.calls) == (0 if root else 2)


def test_on_debian_nothing_is_said_when_all_is_there(commands: Commands) -> None:
    commands.mock("dpkg-query", "printf installed")
    apt = commands.mock("apt-get")
    done = run()
    assert (done.returncode, done.stdout, done.stderr, apt.calls) == (0, "", "", [])


def test_without_root_and_sudo_it_says_so(commands: Commands, tmp_path: Path) -> None:
    commands.mock("dpkg-query", "exit 1")
    commands.mock("apt-get")
    (tmp_path / "bin/id").unlink()
    commands.mock("id", "echo 1000")
    done = run()
    assert done.returncode == 1
    assert done.stderr == "host-packages: only root can install them, and there is no sudo\n"


def test_what_the_examples_ask_for_is_installed() -> None:
    scripts = [path for path in (PROGRAM.parents[1] / "examples").rglob("*") if path.is_file()]
    asked = [
        re.findall(r"[a-z0-9-]+", words.replace(" and ", " "))
        for path in scripts
        for words in re.findall(r"hint: install the packages? ([^)]*)\)", path.read_text("latin-1"))
    ]
    assert ["openssl", "efitools"] in asked
    assert {package for packages in asked for package in packages} <= needed().keys()
