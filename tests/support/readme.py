"""What README prints: commands as a reader would copy them, the screen of a machine, boot paths.

As a program it puts the table of a boot matrix (``tests/boot/matrix.py``) into README.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]

_BLOCK = re.compile(r"(?:^    .*\n|^\n)+", re.MULTILINE)
#: What a machine prints, and no commands to copy.
_SCREEN = re.compile(r"^```console\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`((?:bootc|make|pip) [^`]+)`")
#: The table of the boot matrix, between two comments.
_MATRIX = re.compile(
    r"(?<=<!-- boot matrix: make boot-readme -->\n)\n?(.*?)\n?(?=<!-- end -->\n)", re.S
)


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


def boot_matrix(text: str | None = None) -> str:
    """Return the table of the boot matrix that README, or another text, shows."""
    (found,) = _MATRIX.findall(text or _text())
    return str(found)


def with_boot_matrix(text: str, table: str) -> str:
    """Return a text with the table of the boot matrix replaced."""
    changed, count = _MATRIX.subn(lambda _: f"\n{table}\n", text)
    if count != 1:
        raise SystemExit("README has no place for the boot matrix, or several")
    return changed


def main(table: str) -> None:
    """Put a table of ``make boot-all`` into README."""
    if not Path(table).exists():
        raise SystemExit(f"{table}: not found (hint: make boot-all)")
    changed = with_boot_matrix(_text(), Path(table).read_text("utf-8"))
    (TOP / "README.md").write_text(changed, "utf-8")


def _text() -> str:
    return (TOP / "README.md").read_text("utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
