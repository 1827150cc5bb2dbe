"""What the command does when its output really is a terminal."""

from __future__ import annotations

import os
import pty
import sys

import pytest

from support.children import running

PROGRAM = """
import sys
from bootc.cli.progress import renderer
from bootc.cli.streams import Output, SideStream
from bootc.events import Done, Message, Start
with renderer(SideStream(sys.stderr), Output(sys.stdout)) as sink:
    sink(Message("early"))
    print("rich.progress" in sys.modules)
    sink(Start("task", "Working"))
    sink(Start("odd", "[red]x[/] \\x1b[2J"))
    sink(Message("m" * 200))
    sink(Done("task"))
    sys.stdout.write(f"{sys.stdout.isatty()} {'r' * 200}\\n")
"""


def test_results_are_neither_wrapped_nor_denied_their_terminal() -> None:
    pytest.importorskip("rich")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    argv = [sys.executable, "-c", PROGRAM]
    with running(argv, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while data := os.read(ours, 4096):
                shown += data
        except OSError:  # EIO: how a terminal's end of file looks from here
            pass
        finally:
            os.close(ours)
    assert process.returncode == 0
    assert shown.startswith(b"early\r\nFalse\r\n")
    assert b"Working" in shown
    assert b"m" * 200 in shown
    assert b"[red]x[/] \\x1b[2J" in shown
    assert b"True " + b"r" * 200 in shown
