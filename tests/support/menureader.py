"""How boot loaders read the files of their menus, as a model that shares no code with bootc."""

from __future__ import annotations

import re
from pathlib import Path

#: The boot counter in the name of an entry.
COUNTER = re.compile(r"\+([0-9]+)(?:-([0-9]+))?\.conf$")
#: Old versions leave the prefix out.
UKI = re.compile(r"(/EFI/Linux/bootc/(?:bootc_composefs-)?([0-9a-f]{128})\.efi)(?:\s|$)")


def tries(name: str) -> tuple[int, ...]:
    """Return the boot counter in the name of an entry; empty if it has none."""
    match = COUNTER.search(name)
    return (int(match[1]), int(match[2] or 0)) if match else ()


def keys(path: Path) -> dict[str, str]:
    """Return the keys of a Type 1 entry. Several lines of options or initrd add up."""
    lines = path.read_text(errors="replace").splitlines()
    pairs = [line.split(None, 1) for line in lines]
    found = {pair[0]: pair[1].strip() for pair in pairs if len(pair) == 2}
    for key in ("options", "initrd"):
        values = [pair[1].strip() for pair in pairs if len(pair) == 2 and pair[0] == key]
        if values:
            found[key] = " ".join(values)
    return found


def grub_programs(path: Path) -> list[tuple[str, str, str]]:
    """Return the entries of GRUB's ``user.cfg``: title, path of the program, and image id."""
    entries = re.findall(r'^menuentry "([^"]*)".*?\{(.*?)^\}', path.read_text(), re.M | re.S)
    found = ((title, UKI.search(body)) for title, body in entries)
    return [(title, uki[1], uki[2]) for title, uki in found if uki is not None]
