from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from collections.abc import Callable

import pytest

from bootc import __version__
from bootc.cli import main as cli
from bootc.cli.options import Command, Context, Option, build_parser
from bootc.errors import Error, UsageError, doing


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], int]:
    """Run a verb that raises, and return the exit code."""

    def run_with(exc: BaseException) -> int:
        def run(args: argparse.Namespace, context: Context) -> None:
            with doing("Reading the origin"):
                raise exc

        monkeypatch.setattr(cli, "commands_for", lambda argv: (Command("x", "Fails.", run=run),))
        return cli.main(["x"])

    return run_with


def test_an_error_is_one_line_with_context_and_hint(failing, capsys) -> None:
    assert failing(Error("no boot type", hint="reinstall")) == 1
    assert capsys.readouterr().err == "error: Reading the origin: no boot type (hint: reinstall)\n"


def test_an_oserror_names_the_file(failing, capsys) -> None:
    assert failing(FileNotFoundError(2, "No such file or directory", "/x/y")) == 1
    assert capsys.readouterr().err == "error: Reading the origin: /x/y: No such file or directory\n"


def test_wrong_usage_is_2(capsys) -> None:
    assert cli.main(["no-such-verb"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "no-such-verb" in err
    assert len(err.splitlines()) == 1


def test_a_missing_command_is_2(capsys) -> None:
    assert cli.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("environment", "level"),
    [
        ({}, logging.WARNING),
        ({"BOOTC_LOG": "debug"}, logging.DEBUG),
        ({"BOOTC_LOG": "loud"}, logging.WARNING),
        ({"RUST_LOG": "info"}, logging.INFO),
        ({"RUST_LOG": "WARN"}, logging.WARNING),
        ({"RUST_LOG": "trace"}, logging.DEBUG),
        ({"RUST_LOG": "bootc=debug"}, logging.DEBUG),
        ({"RUST_LOG": "bootc_lib::deploy=debug, error"}, logging.DEBUG),
        ({"RUST_LOG": "hyper=debug"}, logging.WARNING),
        ({"RUST_LOG": "hyper=debug,error"}, logging.ERROR),
        ({"RUST_LOG": "off"}, logging.CRITICAL + 1),
        ({"RUST_LOG": "=,,info=x="}, logging.WARNING),
        ({"BOOTC_LOG": "error", "RUST_LOG": "debug"}, logging.ERROR),
        ({"BOOTC_LOG": "", "RUST_LOG": "debug"}, logging.DEBUG),
    ],
)
def test_the_level_of_logging(environment: dict[str, str], level: int) -> None:
    assert cli.log_level(environment) == level


def test_interrupted_is_130(failing, capsys) -> None:
    assert failing(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "error: interrupted\n"


def test_a_library_that_is_missing_is_named(failing, capsys) -> None:
    assert failing(ModuleNotFoundError("x", name="zstandard")) == 1
    assert capsys.readouterr().err == (
        "error: zstandard is not installed (hint: on Debian apt install python3-zstandard)\n"
    )
    assert failing(ModuleNotFoundError("x", name="bootc.nothing")) == 1
    assert "this is a bug" in capsys.readouterr().err


def test_a_bug_shows_its_traceback_and_says_so(failing, capsys) -> None:
    assert failing(ZeroDivisionError("x")) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: this is a bug")


def test_abbreviated_options_are_refused() -> None:
    parser = build_parser(
        "bootc", (Command("x", "X.", options=(Option(("--wipe",), "W.", default=False),)),), "1"
    )
    with pytest.raises(UsageError):
        parser.parse_args(["x", "--wip"])


def test_version_and_start_cost() -> None:
    """The command starts without importing what only some verbs need."""
    code = (
        "import sys; from bootc.cli.main import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: pass\n"
        "heavy = {'yaml', 'rich', 'zstandard', 'bootc.deploy.host.status', 'bootc.oci.pull'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines() == [f"bootc {__version__}", "[]"]


#: Runs the command, and interrupts it when a module is imported.
INTERRUPTED_IMPORT = """
import os, signal, sys
import bootc.__main__
class Finder:
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{number})
sys.meta_path.insert(0, Finder)
sys.argv = ["bootc", "status"]
sys.exit(bootc.__main__.main())
"""


@pytest.mark.parametrize(
    ("module", "number", "ended"),
    [
        # Nothing is set up yet, so the signal just ends the process.
        ("bootc.cli", "SIGINT", -2),
        ("logging", "SIGINT", -2),
        ("bootc.cli.main", "SIGTERM", -15),
        # From here on it is an orderly end.
        ("bootc.cli.verbs.status", "SIGINT", 130),
        ("bootc.deploy.host.status", "SIGHUP", 130),
        ("bootc.formats.digest", "SIGTERM", 130),
    ],
)
def test_an_interruption_while_modules_are_imported(module: str, number: str, ended: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT.format(module=module, number=number)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ended
    assert done.stderr == ("error: interrupted\n" if ended == 130 else "")


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["frobnicate"], "unknown command 'frobnicate' (hint: see bootc --help)"),
        (["upgade"], "unknown command 'upgade' (hint: did you mean upgrade?)"),
        (["usroverlya"], "unknown command 'usroverlya' (hint: did you mean usr-overlay?)"),
        (["config-dif"], "unknown command 'config-dif' (hint: see bootc --help)"),
        (["etc", "dif"], "unknown command 'dif' (hint: did you mean diff?)"),
        (["internals", "x\x1b"], r"unknown command 'x\x1b' (hint: see bootc internals --help)"),
        (["x" * 500], f"unknown command '{'x' * 79} (hint: see bootc --help)"),
    ],
)
def test_unknown_commands(argv: list[str], told: str, capsys) -> None:
    assert cli.main(argv) == 2
    assert capsys.readouterr().err == f"error: {told}\n"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["upgrade", "--chekc"], "--chekc (hint: did you mean --check?)"),
        (["upgrade", "--x"], "--x (hint: see bootc upgrade --help)"),
        (["status", "--formt=json"], "--formt=json (hint: did you mean --format?)"),
        # A hidden option is no hint.
        (["status", "--jso"], "--jso (hint: see bootc status --help)"),
        # Neither is an operand.
        (["etc", "keep", "--path", "x"], "--path (hint: see bootc etc keep --help)"),
        (["etc", "keep", "a", "b"], "b (hint: see bootc etc keep --help)"),
        (["--versoin"], "--versoin (hint: did you mean --version?)"),
        (["--frobnicate"], "--frobnicate (hint: see bootc --help)"),
        (["internals", "cfs", "fsck", "--jsn"], "--jsn (hint: did you mean --json?)"),
        (["etc", "keep", "a", "b" * 500], f"{'b' * 300}… (hint: see bootc etc keep --help)"),
        (["etc", "keep", "a", *"b" * 500], f"{'b ' * 150}… (hint: see bootc etc keep --help)"),
    ],
)
def test_unknown_options_and_operands(argv: list[str], told: str, capsys) -> None:
    assert cli.main(argv) == 2
    assert capsys.readouterr().err == f"error: unrecognized arguments: {told}\n"


@pytest.mark.parametrize("argv", [["--help"], ["etc", "--help"], ["etc", "diff", "-h"]])
def test_help_is_a_result(argv: list[str], capsys) -> None:
    assert cli.main(argv) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: bootc {' '.join(argv[:-1])}".rstrip())
    assert err == ""
