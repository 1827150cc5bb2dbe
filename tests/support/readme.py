"""What README prints: commands as a reader would copy them, and the screen of a machine."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]

_BLOCK = re.compile(r"(?:^    .*\n|^\n)+", re.MULTILINE)
#: What a machine prints, and no commands to copy.
_SCREEN = re.compile(r"^```console\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`((?:bootc|make|pip) [^`]+)`")


def commands() -> list[str]:
    """Return the lines of all indented blocks, joined and without comments, and all in spans."""
    text = _SCREEN.sub("", _text())
    lines = [line for block in _BLOCK.findall(text) for line in block.splitlines() if line.strip()]
    joined = "\n".join(line[4:] for line in lines).replace("\\\n", " ")
    bare = [re.sub(r"(^|\s)#.*", "", line) for line in joined.splitlines()]
    found = [" ".join(line.split()) for line in bare if line.strip()]
    return [*found, *_SPAN.findall(text)]


def screen() -> str:
    """Return the output that README shows, with the command line above it."""
    (found,) = _SCREEN.findall(_text())
    return str(found)


def of_containers() -> list[str]:
    """Return those that look at an image in the working directory."""
    return [command for command in commands() if command.startswith("bootc container ")]


def of_podman() -> list[str]:
    """Return those that podman runs in a container of an image."""
    return [command for command in commands() if command.startswith("podman run ")]


def _text() -> str:
    return (TOP / "README.md").read_text("utf-8")
