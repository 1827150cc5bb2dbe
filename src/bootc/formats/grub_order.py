"""The order in which GRUB shows entry files: by name, compared as RPM compares packages.

GRUB takes a name apart at its last two dashes, compares the three parts one after the
other and puts the highest first. Runs of digits count as numbers, ``~`` comes before
everything, and all other punctuation only separates.

Source: rpmvercmp of RPM, and ``blscfg.c`` of the GRUB that Fedora ships.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

_RUN = re.compile(r"~|[0-9]+|[A-Za-z]+", re.ASCII)


def grub_order(file_names: Iterable[str]) -> list[str]:
    """Return the names of entry files as GRUB shows them."""
    return sorted(file_names, key=functools.cmp_to_key(_compare_names), reverse=True)


def _compare_names(a: str, b: str) -> int:
    for part_a, part_b in zip(_split(a), _split(b), strict=True):
        if result := _compare_versions(part_a, part_b):
            return result
    return (a > b) - (a < b)


def _split(name: str) -> list[str]:
    parts = name.rsplit("-", 2)
    return parts + [""] * (3 - len(parts))


def _compare_versions(a: str, b: str) -> int:
    runs_a, runs_b = _RUN.findall(a), _RUN.findall(b)
    for run_a, run_b in zip(runs_a, runs_b, strict=False):
        if result := _compare_runs(run_a, run_b):
            return result
    if len(runs_a) == len(runs_b):
        return 0
    longer, sign = (runs_a, 1) if len(runs_a) > len(runs_b) else (runs_b, -1)
    return -sign if longer[min(len(runs_a), len(runs_b))] == "~" else sign


def _compare_runs(a: str, b: str) -> int:
    # A tilde is less than everything else, and a word is less than a number.
    kind_a, kind_b = _kind(a), _kind(b)
    if kind_a != kind_b:
        return kind_a - kind_b
    if a.isdigit():
        a, b = a.lstrip("0"), b.lstrip("0")
        if len(a) != len(b):
            return len(a) - len(b)
    return (a > b) - (a < b)


def _kind(run: str) -> int:
    return 0 if run == "~" else 2 if run.isdigit() else 1
