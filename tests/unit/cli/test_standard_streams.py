"""Closed, full, broken and slow streams, and what a command does all the same."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bootc.cli.streams import Output, OutputLost, SideStream
from bootc.cli.table import INTERNALS, VERBS
from support import children, images

BOOTC = f"{sys.executable} -m bootc"
ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "container": "podman"}
#: What a shell writes behind a command, and whether standard output takes a result then.
SURROUNDINGS = {
    "0<&-": True,
    "1>&-": False,
    "2>&-": True,
    "0<&- 1>&- 2>&-": False,
    "1>/dev/full": False,
    "2>/dev/full": True,
    "1>/dev/full 2>/dev/full": False,
    "2>&1 | head -c0; exit ${PIPESTATUS[0]}": False,
}
each_surrounding = pytest.mark.parametrize("around", SURROUNDINGS)

Shell = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def make_tree(path: Path) -> None:
    for name in ("usr", "boot", "sysroot"):
        (path / "tree" / name).mkdir(parents=True)
    (path / "tree/usr/file").write_bytes(b"x" * 100_000)


# -- whole commands


ALL = [[verb] for verb in VERBS] + [["internals", verb] for verb in INTERNALS]


@pytest.mark.parametrize("verb", ALL, ids=" ".join)
def test_every_verb_ends_as_it_does_with_streams(verb: list[str], shell: Shell) -> None:
    """Without arguments each verb prints something, refuses its usage, or refuses this place."""
    command = f"{BOOTC} {' '.join(verb)}"
    normal = shell(command)
    for around in ("0<&- 1>&- 2>&-", "1>/dev/full"):
        done = shell(f"{command} {around}")
        expected = normal.returncode or int(bool(normal.stdout))
        assert done.returncode == expected, (around, done.stderr)
        assert "Traceback" not in done.stderr
        assert done.stderr.count("error: ") == (expected != 0 and "2>" not in around)


@each_surrounding
@pytest.mark.parametrize("asked", ["--help", "--version", "internals features --json"])
def test_a_result_that_nobody_gets_is_a_failure(asked: str, around: str, shell: Shell) -> None:
    done = shell(f"{BOOTC} {asked} {around}")
    assert done.returncode == (0 if SURROUNDINGS[around] else 1)
    told = {
        "1>&-": "error: standard output: Bad file descriptor\n",
        "1>/dev/full": "error: standard output: No space left on device\n",
    }
    assert done.stderr == told.get(around, "")


@each_surrounding
def test_a_command_does_its_work_to_the_end(around: str, shell: Shell, tmp_path: Path) -> None:
    """Each step needs what the one before has done, and prints results or progress."""
    layout = images.single(tmp_path / "layout", images.bootable())
    make_tree(tmp_path)
    steps = (
        "internals cfs --repo repo init --insecure",
        "internals cfs --repo repo create-image tree name",
        f"internals cfs --repo repo oci pull {layout.reference()} tag",
        "internals cfs --repo repo gc",
        "internals mkcomposefs --print-digest tree image",
    )
    for step in steps:
        done = shell(f"{BOOTC} {step} {around}")
        assert done.returncode == (0 if SURROUNDINGS[around] else 1), (step, done.stderr)
        assert "Traceback" not in done.stderr
    assert (tmp_path / "repo/images/refs/name").is_symlink()
    assert shell(f"{BOOTC} internals cfs --repo repo fsck").returncode == 0
    assert "tag" in shell(f"{BOOTC} internals cfs --repo repo oci images").stdout
    assert (tmp_path / "image").stat().st_size > 0


def test_damage_is_repaired_though_nobody_reads_the_report(shell: Shell, tmp_path: Path) -> None:
    make_tree(tmp_path)
    shell(f"{BOOTC} internals cfs --repo repo init --insecure")
    shell(f"{BOOTC} internals cfs --repo repo create-image tree name")
    objects = sorted((tmp_path / "repo/objects").glob("??/*"), key=lambda p: p.stat().st_size)
    objects[-1].chmod(0o600)
    objects[-1].write_bytes(b"damaged")
    done = shell(f"{BOOTC} internals cfs --repo repo fsck --repair >/dev/full")
    assert done.returncode == 1
    assert not objects[-1].exists()


def test_no_file_of_ours_becomes_a_standard_stream(shell: Shell, tmp_path: Path) -> None:
    """What would be printed to descriptor 1 or 2 must not end up in a file."""
    done = shell(
        f"""{sys.executable} -c '
import os, sys
from bootc.cli import main
main.commands_for = lambda argv: os._exit(10 + os.open("/dev/null", os.O_RDONLY))
main.main()' 0<&- 1>&- 2>&-"""
    )
    assert done.returncode > 12


def test_a_terminal_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    ours, theirs = pty.openpty()
    os.close(ours)
    argv = [sys.executable, "-m", "bootc", "internals", "mkcomposefs", "tree", "image"]
    done = subprocess.run(
        argv, cwd=tmp_path, env=ENVIRONMENT, stdin=theirs, stdout=theirs, stderr=theirs, check=False
    )
    os.close(theirs)
    assert done.returncode == 0
    assert (tmp_path / "image").stat().st_size > 0


#: The first is like a locale of Latin-1: names of files are in that encoding, too.
LOCALES = (
    "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0",
    "PYTHONIOENCODING=ascii",
    "PYTHONIOENCODING=latin-1",
)


@pytest.mark.parametrize("locale", LOCALES)
def test_names_that_the_encoding_lacks(locale: str, shell: Shell, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "b" / "中").touch()
    done = shell(f"{locale} {BOOTC} internals dir-diff a b a")
    assert (done.returncode, done.stdout) == (0, 'Added "\\u4e2d"\n')
    # The arguments are names, too.
    refused = shell(f"{locale} {BOOTC} internals dir-diff a b/中 a/文")
    assert "/\\u6587" in refused.stderr or "b/\\u4e2d" in refused.stderr
    assert refused.stderr.count("\n") == 1


# -- the streams themselves


@pytest.fixture
def pipe() -> Iterator[tuple[int, io.TextIOWrapper]]:
    ours, theirs = os.pipe()
    with open(theirs, "w", encoding="utf-8") as stream:
        yield ours, stream
    os.close(ours)


def fill(fd: int) -> int:
    """Fill a pipe, and return how much went in."""
    os.set_blocking(fd, False)
    size = 0
    try:
        while True:
            size += os.write(fd, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(fd, True)
        return size


def test_progress_does_not_wait_for_a_reader(pipe: tuple[int, io.TextIOWrapper]) -> None:
    ours, stream = pipe
    side = SideStream(stream)
    full = fill(stream.fileno())
    side.line("lost")
    assert side.write("y" * 100_000) == 100_000
    assert os.read(ours, 1 << 20) == b"x" * full
    side.line("here again")
    assert os.read(ours, 1 << 20) == b"here again\n"


def test_a_warning_waits_for_a_while_and_only_once(pipe: tuple[int, io.TextIOWrapper]) -> None:
    ours, stream = pipe
    side = SideStream(stream)
    full = fill(stream.fileno())
    begun = time.monotonic()
    for _ in range(20):
        side.line("lost", 0.2)
    assert 0.2 <= time.monotonic() - begun < 2
    assert len(os.read(ours, 1 << 20)) == full
    side.line("here again", 0.2)
    assert os.read(ours, 1 << 20) == b"here again\n"


def test_a_result_waits_for_its_reader(pipe: tuple[int, io.TextIOWrapper]) -> None:
    """Also where another program made the pipe non-blocking."""
    ours, stream = pipe
    os.set_blocking(stream.fileno(), False)
    argv = ["sh", "-c", "sleep 0.3; wc -c"]
    with children.running(argv, stdin=ours, stdout=subprocess.PIPE) as reader:
        output = Output(stream)
        output.result("é" * 500_000)
        stream.close()
        assert reader.stdout is not None
        assert reader.stdout.read().strip() == b"1000000"
    assert output.failure is None


def test_what_is_lost() -> None:
    with open("/dev/full", "w") as full:
        output = Output(full)
        output.message("lost")
        assert output.failure is None
        output.result("lost")
        assert output.failure is not None
        with pytest.raises(OutputLost, match="standard output: No space left on device"):
            output.result_bytes(b"lost")


def test_messages_that_are_the_result() -> None:
    with open("/dev/full", "w") as full:
        output = Output(full)
        output.count_messages()
        output.message("lost")
        assert output.failure is not None


def test_a_result_after_a_message_that_was_lost() -> None:
    with open("/dev/full", "w") as full:
        output = Output(full)
        output.message("lost")
        output.result("")
        assert output.failure is not None


def test_what_reaches_the_streams_is_escaped() -> None:
    out, err = io.StringIO(), io.StringIO()
    output, side = Output(out), SideStream(err)
    output.message("a\x1b\nb")
    output.result("c\x1b[2J\r\nd\udcff\n")
    output.result_bytes(b"e\x1b\n")
    side.line("f\x07\ng")
    side.error("h\u202e")
    assert out.getvalue() == "a\\x1b\\nb\nc\\x1b[2J\\r\nd\\xff\ne\x1b\n"
    assert err.getvalue() == "f\\x07\\ng\nerror: h\\u202e\n"


def test_bytes_are_escaped_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stream:
        Output(stream).result_bytes(b"a\tb\x1b\xff\n")
        assert os.read(ours, 100).replace(b"\r", b"") == b"a\tb\\x1b\\xff\n"
    os.close(ours)


@pytest.mark.parametrize(
    ("variables", "colours"),
    [
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False),
    ],
)
def test_colours(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], colours: bool) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    with open(theirs, "w") as terminal:
        SideStream(terminal).error("no")
        shown = os.read(ours, 100)
    os.close(ours)
    assert shown == (b"\x1b[31merror:\x1b[0m no\r\n" if colours else b"error: no\r\n")


def test_a_directory_ends_python(tmp_path: Path) -> None:
    """The manual page says so. If a later Python starts bootc, the page is to be changed."""
    argv = [sys.executable, "-m", "bootc", "--version"]
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        done = subprocess.run(
            argv, stdin=directory, capture_output=True, text=True, check=False, env=ENVIRONMENT
        )
    finally:
        os.close(directory)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is a directory, cannot continue" in done.stderr
