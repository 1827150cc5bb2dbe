"""A comparison of two trees, for people and for programs.

The text lists classes of differences with counts and examples, then the changes that would
make the trees equal. Names and values come from images, so a terminal must not take them for
commands.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from typing import Any

from bootc.cli.render.structured import name_value, render_json
from bootc.formats.treediff import Aspect, Difference, DifferenceGroup
from bootc.oci.canonical import Applied
from bootc.oci.explain import Comparison, Side
from bootc.printable import printable

_WIDTH = 80


def comparison_text(report: Comparison) -> str:
    """Return the comparison for people, with a newline at the end."""
    return "".join(f"{line}\n" for line in _lines(report))


def _lines(report: Comparison) -> Iterator[str]:
    for letter, side in (("A", report.a), ("B", report.b)):
        yield f"{letter}: {_name(side)} ({side.kind.value}, {_count(side.entries, 'entry')})"
        yield f"   {side.digest.hex}"
    if report.equal:
        yield "The digests are equal."
        return
    yield "The digests differ."
    yield ""
    width = max((len(finding.title) for finding in report.findings), default=0)
    if report.a.format_version != report.b.format_version:
        yield f"format version: {_version(report.a)} in A, {_version(report.b)} in B"
    for finding in report.findings:
        yield f"{finding.title:{width}}  {finding.entries:>7}{_remarks(finding)}"
        yield from (f"    {_example(example)}" for example in finding.examples)
    yield from _conclusion(report)


def _conclusion(report: Comparison) -> Iterator[str]:
    if report.writers is not None:
        a, b = ("unknown" if w is None else w.value for w in report.writers)
        yield f"The trees are equal; the images were written by different rules: A {a}, B {b}."
    elif report.explanation is None:
        yield ""
        yield "No known canonicalisation makes them equal."
    elif report.explanation:
        yield ""
        yield "These become equal when"
        for applied in report.explanation:
            change = applied.canonicalisation
            yield from _paragraph(f"{change.name}: {change.condition}{_sides(applied)}.", "  - ")
            yield from _paragraph(f"{change.advice[0].upper()}{change.advice[1:]}.", "    ")


def _paragraph(text: str, first: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _sides(applied: Applied) -> str:
    if applied.changes_a == applied.changes_b:
        return ""
    return f" (which changes {'A' if applied.changes_a else 'B'})"


def _remarks(finding: DifferenceGroup) -> str:
    remarks = []
    if finding.directories == finding.entries:
        remarks.append("directories only")
    elif finding.directories:
        remarks.append(_count(finding.directories, "directory"))
    for letter, count in (("A", finding.only_a), ("B", finding.only_b)):
        if count == finding.entries:
            remarks.append(f"only in {letter}")
        elif count:
            remarks.append(f"{count} only in {letter}")
    return "".join(f", {remark}" for remark in remarks)


def _example(example: Difference) -> str:
    path = printable(example.path)
    if example.aspect is Aspect.ENTRY:
        kind = example.a or example.b
        more = f" of {_count(example.entries, 'entry')}" if example.entries > 1 else ""
        return f"{path}: {kind}{more}, only in {'A' if example.b is None else 'B'}"
    a, b = ("nothing" if value is None else value or "empty" for value in (example.a, example.b))
    return f"{path}: {a} in A, {b} in B"


def _version(side: Side) -> str:
    return "none" if side.format_version is None else str(side.format_version)


def _name(side: Side) -> str:
    return printable(os.fsencode(side.name))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun.removesuffix('y')}ies"


def comparison_json(report: Comparison) -> str:
    """Return the comparison as JSON, with a newline at the end.

    A name that is not UTF-8 appears twice: as text with escapes, and in hex.
    """
    value: dict[str, Any] = {
        "equal": report.equal,
        "a": _side_value(report.a),
        "b": _side_value(report.b),
        "differences": [_finding_value(finding) for finding in report.findings],
        "equalWhen": None,
        "writers": None,
    }
    if report.explanation is not None:
        value["equalWhen"] = [_applied_value(applied) for applied in report.explanation]
    if report.writers is not None:
        value["writers"] = [None if w is None else w.value for w in report.writers]
    return render_json(value) + "\n"


def _side_value(side: Side) -> dict[str, Any]:
    return {
        "name": _name(side),
        "kind": side.kind.value,
        "entries": side.entries,
        "digest": side.digest.hex,
        "formatVersion": side.format_version,
    }


def _finding_value(finding: DifferenceGroup) -> dict[str, Any]:
    return {
        "class": finding.aspect.value,
        **(name_value("xattr", finding.name) if finding.aspect is Aspect.XATTR else {}),
        "entries": finding.entries,
        "directories": finding.directories,
        "onlyA": finding.only_a,
        "onlyB": finding.only_b,
        "examples": [
            {**name_value("path", example.path), "a": example.a, "b": example.b}
            for example in finding.examples
        ],
    }


def _applied_value(applied: Applied) -> dict[str, Any]:
    change = applied.canonicalisation
    sides = (("a", applied.changes_a), ("b", applied.changes_b))
    return {
        "canonicalisation": change.name,
        "condition": change.condition,
        "advice": change.advice,
        "changes": [side for side, changed in sides if changed],
    }
