r"""Reads type and name from lines of ``tmpfiles.d`` and ``sysusers.d``.

A word may be in quotes and have escapes as in C. Specifiers (``%b``) are not expanded.
Malformed lines are skipped, as systemd does with a warning.

Sources: tmpfiles.d(5), sysusers.d(5).

>>> typed_names(b'd "/run/a b" 0755 - -\n# a comment\nu! _x -\n')
[('d', '/run/a b'), ('u!', '_x')]
"""

from __future__ import annotations

import os
import string

_BLANKS = b" \t\r"
_NAMED = dict(zip(b"ntrabfvs", b"\n\t\r\a\b\f\v ", strict=True))
#: How many digits follow, and in which base.
_NUMBERS = {ord("x"): (2, 16), ord("u"): (4, 16), ord("U"): (8, 16)}
_OCTAL_DIGITS = 3
_PLAIN = frozenset(string.ascii_letters + string.digits + string.punctuation) - {"\\"}
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def typed_names(data: bytes) -> list[tuple[str, str]]:
    """Return type and name of every line that has both."""
    found = []
    for line in data.split(b"\n"):
        text = line.strip(_BLANKS)
        if not text or text[0] in b"#;":
            continue
        kind, rest = _word(text)
        name, _ = _word(rest)
        if kind and name:
            found.append((os.fsdecode(kind), os.fsdecode(name)))
    return found


def tmpfiles_path(path: str) -> str:
    r"""Return a path in the form of a line of ``tmpfiles.d``.

    >>> print(tmpfiles_path("/var/foo bar"))
    /var/foo\x20bar
    """
    return "".join(char if char in _PLAIN else _ESCAPES.get(char) or _hex(char) for char in path)


def _hex(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(char))


def _word(text: bytes) -> tuple[bytes, bytes]:
    """Return the first word and the text after it. A malformed word is empty."""
    text = text.lstrip(_BLANKS)
    quote = text[0] if text[:1] in (b"'", b'"') else None
    word = bytearray()
    at = 0 if quote is None else 1
    while at < len(text):
        byte = text[at]
        if byte == quote or (quote is None and byte in _BLANKS):
            return bytes(word), text[at + 1 :]
        at += 1
        if byte != ord("\\"):
            word.append(byte)
            continue
        escaped, at = _unescape(text, at)
        if not escaped:
            return b"", b""
        word += escaped
    return (bytes(word), b"") if quote is None else (b"", b"")


def _unescape(text: bytes, at: int) -> tuple[bytes, int]:
    """Return the value of an escape (empty if malformed), and the offset of the text after it."""
    kind = text[at] if at < len(text) else 0
    if kind in _NUMBERS:
        digits, base = _NUMBERS[kind]
        at += 1
    elif kind in b"01234567":
        digits, base = _OCTAL_DIGITS, 8
    else:
        return (bytes([_NAMED.get(kind, kind)]) if kind else b""), at + 1
    number = text[at : at + digits]
    at += digits
    try:
        value = int(number, base) if len(number) == digits and number.isalnum() else 0
        return (chr(value).encode() if digits > _OCTAL_DIGITS else bytes([value]) * bool(value)), at
    except (ValueError, OverflowError):
        return b"", at
