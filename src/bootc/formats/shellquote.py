r"""Names of files quoted for a shell, on one line.

The texts of ``container lint`` and ``container inspect`` quote names like this, because
upstream does, and a user can paste such a name. Every other message uses
:mod:`bootc.printable`.

Most names need no quotes. A name that a shell would take apart is quoted. If a name has bytes
that are not printable, it is quoted with escapes, like ``printf %q`` of bash does it.

>>> print(shell_quoted("/srv/a b"), shell_quoted("it's"), shell_quoted("tab\t"))
'/srv/a b' "it's" $'tab\x09'
"""

from __future__ import annotations

import os

_SAFE = frozenset("/.-_,=:")
#: Safe among ASCII only, as upstream quotes names.
_SAFE_ASCII = _SAFE | frozenset("+@]")
#: The shell expands these inside double quotes.
_EXPANDED = frozenset("$`!")


def shell_quoted(name: str) -> str:
    """Return a name, quoted for a shell if necessary.

    Bytes that are not UTF-8 are encoded in ``name`` as by :func:`os.fsdecode`.
    """
    name = _as_utf8(name)
    if all(c.isalnum() or c in _SAFE for c in name):
        return name
    if name.isascii() and all(c.isalnum() or c in _SAFE_ASCII for c in name):
        return name
    if not name.isprintable():
        return f"$'{''.join(map(_escaped, name))}'"
    if "'" not in name:
        return f"'{name}'"
    if _EXPANDED.isdisjoint(name):
        protected = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{protected}"'
    inside = name.replace("'", "'\"'\"'")
    return f"'{inside}'"


def double_quoted(name: str) -> str:
    r"""Return a name in double quotes, with escapes for bytes that are not printable text.

    >>> print(double_quoted(os.fsdecode(b"a\xff\n")))
    "a\xFF\n"
    """
    return f'"{"".join(map(_debugged, _as_utf8(name)))}"'


def _as_utf8(name: str) -> str:
    """Return a name as it is in UTF-8: in other locales Python reads names in their encoding."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def _escaped(char: str) -> str:
    if char in "'\\":
        return f"\\{char}"
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def _debugged(char: str) -> str:
    if char in "\"'\\":
        return f"\\{char}"
    if char.isprintable():
        return char
    if 0xDC80 <= ord(char) <= 0xDCFF:
        return f"\\x{ord(char) - 0xDC00:02X}"
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": "\\0"}
    return named.get(char, f"\\u{{{ord(char):x}}}")
