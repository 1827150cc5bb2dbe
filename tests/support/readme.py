"""The commands that README prints, as a reader would copy them."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]

_BLOCK = re.compile(r"(?:^    .*\n|^\n)+", re.MULTILINE)
_SPAN = re.compile(r"`((?:bootc|make|pip) [^`]+)`")


def commands() -> list[str]:
    """Return the lines of all indented blocks, joined and without comments, and all in spans."""
    text = (TOP / "README.md").read_text("utf-8")
    lines = [line for block in _BLOCK.findall(text) for line in block.splitlines() if line.strip()]
    joined = "\n".join(line[4:] for line in lines).replace("\\\n", " ")
    bare = [re.sub(r"(^|\s)#.*", "", line) for line in joined.splitlines()]
    found = [" ".join(line.split()) for line in bare if line.strip()]
    return [*found, *_SPAN.findall(text)]


def of_containers() -> list[str]:
    """Return those that look at an image in the working directory."""
    return [command for command in commands() if command.startswith("bootc container ")]
