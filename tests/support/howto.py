"""Commands that the how-tos and tutorials print, for tests that run them.

A command is a line of an indented block that begins with ``# ``, or with ``RUN `` if it is for
building an image; a backslash continues it. All other lines are output.
``tests/unit/test_howtos.py`` fails if a page prints a command that no test reads from here.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

_DOCS = Path(__file__).parents[2] / "docs"
_PAGES = {path.stem: path for name in ("howto", "tutorial") for path in (_DOCS / name).glob("*.md")}
#: What all pages call the image and the disk; only these may a test replace.
IMAGE = "docker://registry.example.com/os:v1"
DISK = "/dev/vda"
_COMMAND = re.compile(r"^ {4,}(?:# |(?=RUN ))((?:.*\\\n)*.*)$", re.MULTILINE)
_ENDS = {"|", "||", "&&", ";", ";;", "&", ">", ">>", "<", "(", ")"}


def text(page: str) -> str:
    """Return a page."""
    return _PAGES[page].read_text("utf-8")


def pages() -> list[str]:
    """Return the names of all pages."""
    return sorted(_PAGES)


def commands(page: str, beginning: str = "") -> list[str]:
    """Return the commands of a page that begin with these words, each on one line."""
    found = _COMMAND.findall(text(page))
    lines = (re.sub(r"\s*\\\n\s*", " ", command) for command in found)
    return [line for line in lines if line.startswith(beginning)]


def command(page: str, beginning: str) -> str:
    """Return the only command of a page that begins with these words."""
    found = commands(page, beginning)
    assert len(found) == 1, f"{page}.md has {found} for {beginning!r}"
    return found[0]


def installer(page: str, beginning: str) -> str:
    """Return the command of a page that installs, without the image and the disk at its end."""
    rest = f" --source-imgref {IMAGE} {DISK}"
    found = command(page, beginning)
    assert found.endswith(rest), found
    return found.removesuffix(rest)


def replaced(line: str, ours: Mapping[str, str]) -> str:
    """Return a command with what pages call the image and disks replaced by the test's own."""
    for printed, own in ours.items():
        line = line.replace(printed, own)
    return line


def bootc_arguments(line: str) -> list[list[str]]:
    """Return the arguments of each ``bootc`` that a command line runs."""
    words: list[str] = []
    parts = [words]
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    for word in lexer:
        if word in _ENDS:
            words = []
            parts.append(words)
        else:
            words.append(word)
    return [part[part.index("bootc") + 1 :] for part in parts if "bootc" in part]
