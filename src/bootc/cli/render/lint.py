"""The text of ``bootc container lint``, in upstream's words, which build scripts search for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from bootc.lint.model import LintKind

if TYPE_CHECKING:
    from bootc.lint.model import Lint, LintFinding
    from bootc.lint.run import Counts

#: How many items of a list the text shows by default.
SHOWN_ITEMS = 5


def finding_text(lint: Lint, finding: LintFinding, limit: int | None = SHOWN_ITEMS) -> str:
    """Return the text of a finding, with a newline at the end.

    Args:
        lint: The lint that has found it.
        finding: The finding. After lists an empty line follows.
        limit: How many items of each list the text shows, or None for all.
    """
    label = "Failed lint" if lint.kind is LintKind.FATAL else "Lint warning"
    return f"{label}: {lint.name}: {details(finding, limit)}\n"


def details(finding: LintFinding, limit: int | None = SHOWN_ITEMS) -> str:
    """Return the text of a finding without its lint; a list ends in a newline."""
    if isinstance(finding, str):
        return finding
    lines = []
    for listing in finding:
        lines.append(f"{listing.header}:")
        lines += [f"  {item}" for item in listing.items[:limit]]
        if limit is not None and len(listing.items) > limit:
            lines.append(f"  ...and {len(listing.items) - limit} more")
    return "".join(f"{line}\n" for line in lines)


def counts_text(counts: Counts) -> str:
    """Return the lines that say how many checks passed, how many did not run, and so on."""
    lines = [f"Checks passed: {counts.passed}"]
    lines += [
        f"{what}: {count}"
        for what, count in (
            ("Checks skipped", counts.skipped),
            ("Warnings", counts.warnings),
            ("Warnings of pybootc", counts.own_warnings),
        )
        if count
    ]
    return "".join(f"{line}\n" for line in lines)


def lint_text(lint: Lint) -> str:
    """Return a lint as an item of a YAML list. A string of JSON is a string of YAML."""
    lines = [
        f"- name: {lint.name}",
        f"  type: {lint.kind.value}",
        f"  description: {json.dumps(lint.description, ensure_ascii=False)}",
    ]
    if lint.root_type is not None:
        lines.append(f"  root-type: {lint.root_type.value}")
    return "".join(f"{line}\n" for line in lines)
