"""Tables as ``cfsctl`` prints them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bootc.printable import printable


def render_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of one row or more as ``cfsctl`` prints it, with a newline at the end."""
    lines = [header, *(list(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def rule(left: str, line: str, cross: str, right: str) -> str:
        return left + cross.join(line * (width + 2) for width in widths) + right

    text = [
        "│" + "┆".join(f" {cell:<{width}} " for cell, width in zip(line, widths, strict=True)) + "│"
        for line in lines
    ]
    body = f"\n{rule('├', '╌', '┼', '┤')}\n".join(text[1:])
    return "\n".join(
        (
            rule("┌", "─", "┬", "┐"),
            text[0],
            rule("╞", "═", "╪", "╡"),
            body,
            rule("└", "─", "┴", "┘"),
            "",
        )
    )
