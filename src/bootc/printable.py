r"""Text that others wrote, made safe to show.

Names come from images, registries, disks and command lines, and can hold anything. A
terminal takes escape characters in them for commands, a reader of a log takes a newline for
the end of a message, and direction marks reorder the text on the screen. Text of others
must pass one of these functions before it is shown:

- :func:`printable`: one line, for messages and tables.
- :func:`shown`: the same in quotes and of bounded length, for a part of a message.
- :func:`printable_lines`: as :func:`printable`, for text that has lines of its own.
- :func:`quoted`: a path in a line that scripts compare with upstream's; it can be undone.
- :func:`ascii_escaped`: JSON text. The escapes are JSON's own, so the value stays the same.

Unprintable characters are those of :meth:`str.isprintable`: control characters, direction
marks and other invisible characters, line separators, and bytes that are not UTF-8.

:func:`printable` changes nothing in text that it returned before. The edges of the command
(error line, log, standard output) can therefore escape whatever arrives there.

Everything that runs in the initramfs imports this module, so it imports nothing.

>>> printable(b"a\xff\x1b[2J\n")
'a\\xff\\x1b[2J\\n'
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_QUOTED = {**_SHORT, "\0": "\\0", '"': '\\"', "\\": "\\\\"}
#: Marks that would sit on the character before them.
_COMBINING = ("Mn", "Me")
#: How many names a message lists before it only counts.
_LISTED = 10
#: How much of each name.
_NAME = 128
#: How much of a text that a message is about.
_SHOWN = 300


def printable(text: str | bytes, most: int | None = None) -> str:
    r"""Return a text in one line, with an escape for each character that is not printable.

    Args:
        text: Bytes are taken for UTF-8.
        most: Cut the text after so many characters or bytes.

    >>> printable("kernel-\u202e", 7), printable("a\u202eb")
    ('kernel-…', 'a\\u202eb')
    """
    rest = ""
    if most is not None and len(text) > most:
        text, rest = text[:most], "…"
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else _escaped(c) for c in text)
    return text + rest


def shown(text: str | bytes, most: int = _SHOWN) -> str:
    r"""Return a text in quotes; one that is longer than ``most`` is cut, and its length follows.

    >>> shown(b"a\n"), shown(b"abcdef", most=2)
    ("'a\\n'", "'ab…' (6 bytes)")
    """
    unit = "bytes" if isinstance(text, bytes) else "characters"
    length = "" if len(text) <= most else f" ({len(text)} {unit})"
    return f"'{printable(text, most)}'{length}"


def printable_lines(text: str) -> str:
    """Return a text of several lines; each is as :func:`printable` returns it."""
    if text.replace("\n", "").isprintable():
        return text
    return "\n".join(map(printable, text.split("\n")))


def quoted(path: bytes) -> str:
    r"""Return a path as Rust's ``Debug`` shows it, without the quotes around it.

    >>> quoted(b'a "b"\xff')
    'a \\"b\\"\\xFF'
    """
    # Only reports need it, and the initramfs has none.
    import unicodedata

    def escaped(char: str) -> str:
        if char in _QUOTED:
            return _QUOTED[char]
        if _is_byte(char):
            return f"\\x{ord(char) - 0xDC00:02X}"
        if char.isprintable() and unicodedata.category(char) not in _COMBINING:
            return char
        return f"\\u{{{ord(char):x}}}"

    return "".join(map(escaped, path.decode("utf-8", "surrogateescape")))


def ascii_escaped(json_text: str) -> str:
    r"""Return JSON text in which what is not printable is written as ``\u`` and four digits.

    Newlines and blanks between values stay. A JSON reader gets the same values.

    >>> ascii_escaped('["\x7f\U000e0001"]')
    '["\\u007f\\udb40\\udc01"]'
    """
    if json_text.replace("\n", "").isprintable():
        return json_text
    return "".join(c if c.isprintable() or c == "\n" else _in_json(c) for c in json_text)


def listed(names: Iterable[str], most: int = _LISTED) -> str:
    """Return names as a list of bounded length.

    >>> listed(["a", "b", "c", "d"], most=2)
    'a, b and 2 more'
    """
    found = list(names)
    text = ", ".join(printable(name, _NAME) for name in found[:most])
    return text if len(found) <= most else f"{text} and {len(found) - most} more"


def first_lines(lines: Sequence[str], most: int = _LISTED) -> list[str]:
    """Return the first lines, and after them one that says how many more there are.

    >>> first_lines(["a", "b", "c"], most=1)
    ['a', 'and 2 more']
    """
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return [*lines[:most], *more]


def _escaped(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    if _is_byte(char):
        return f"\\x{ord(char) - 0xDC00:02x}"
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _in_json(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


def _is_byte(char: str) -> bool:
    # How Python carries a byte that is not UTF-8 (PEP 383).
    return "\udc80" <= char <= "\udcff"
