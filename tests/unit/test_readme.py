"""CI runs every command that README prints, to the letter. Here is where."""

from __future__ import annotations

from importlib.machinery import SourceFileLoader
from types import ModuleType

from support.readme import TOP, commands, of_containers

#: Who runs those that are not for a machine with an image.
RUN_BY = {
    # CI works in a clone, and check-as-user makes another copy of what git has.
    "git clone … pybootc && cd pybootc": ("tools/check-as-user", '"git", "ls-files"'),
    "make demo": ("tests/boot/stations.py", '"make", "demo"'),
    "make test": (".ci/run", "\nmake test\n"),
    "make check": ("tools/check-as-user", "exec make check"),
    "RUN bootc container lint": (
        "tests/host/test_lint_build.py",
        'main(["container", "lint", *arguments])',
    ),
    "make install": ("tests/unit/initramfs/test_data.py", '"make", "--silent", "install"'),
    "make install DESTDIR=/path/to/root": (
        "tests/unit/initramfs/test_data.py",
        '"make", "--silent", "install"',
    ),
    "pip install .": ("tests/interop/test_readme_commands.py", '"pip install ."'),
    "bootc internals features": (
        "tests/interop/test_readme_commands.py",
        '"bootc internals features"',
    ),
}


def demo() -> ModuleType:
    loader = SourceFileLoader("demo", str(TOP / "examples/debian/demo"))
    module = ModuleType("demo")
    module.__file__ = loader.path
    exec(loader.get_code("demo") or "", module.__dict__)
    return module


def test_who_runs_it_does() -> None:
    for command, (path, words) in RUN_BY.items():
        assert words in (TOP / path).read_text("utf-8"), command


def test_every_command_is_run() -> None:
    shown = demo()
    in_machines = {shown.INSTALL, *shown.BEFORE_UPDATE, *shown.UPDATE, *shown.AFTER_UPDATE}
    missing = [
        command
        for command in commands()
        if command not in RUN_BY and command not in of_containers() and command not in in_machines
    ]
    assert missing == [], "README prints what nobody runs"


def test_what_a_reader_would_copy() -> None:
    found = commands()
    assert found[:2] == ["git clone … pybootc && cd pybootc", "make demo"]
    assert "bootc rollback" in found
    assert len(of_containers()) == 2
    assert not [command for command in found if "#" in command or "\\" in command]
