"""The words of ``/etc`` reports: one line for each change and each conflict.

The lines are those of upstream's ``config-diff`` (bootc, etc-merge ``print_diff``), which
tools read, without colour: ``Added "<path>"``, ``Modified``, ``Removed``, then
``Unmergable <reason>``. Paths are quoted as Rust's ``Debug`` does, so that a line is always
one line whatever a file is called.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

from bootc.deploy.etc.diff import Change

_ESCAPES = {"\0": "\\0", "\t": "\\t", "\n": "\\n", "\r": "\\r", '"': '\\"', "\\": "\\\\"}
#: Marks that would sit on the character before them.
_COMBINING = ("Mn", "Me")


def report(changes: Iterable[Change], reasons: Iterable[str] = ()) -> Iterator[str]:
    """Yield the lines that tell of changes, in the order given, and of conflicts."""
    for change in changes:
        yield f'{change.kind.value} "{quoted(change.path)}"'
    for reason in reasons:
        yield f"Unmergable {reason}"


def quoted(path: bytes) -> str:
    """Return a path with everything escaped that could not be printed, without the quotes."""
    return "".join(map(_escaped, path.decode("utf-8", "surrogateescape")))


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if "\udc80" <= char <= "\udcff":
        return f"\\x{ord(char) - 0xDC00:02X}"  # a byte that is no UTF-8
    if char.isprintable() and unicodedata.category(char) not in _COMBINING:
        return char
    return f"\\u{{{ord(char):x}}}"
