r"""The text of dumpfile lines: columns and escapes.

Bytes outside ``!`` to ``~`` are escaped as ``\xHH`` or ``\\ \n \r \t``; so is ``=`` in
xattrs. ``-`` stands for "none". A value that is a lone dash is therefore escaped.

Source: composefs-dump(5).
"""

from __future__ import annotations

import re
import stat
from typing import assert_never

from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Content,
    External,
    Fifo,
    Inline,
    Socket,
    Sparse,
    Stat,
    Symlink,
    Unverified,
    kind_of,
)

COLUMNS = 11
PATH, SIZE, MODE, NLINK, UID, GID, RDEV, MTIME, PAYLOAD, CONTENT, DIGEST = range(COLUMNS)

NAMES = (
    *("path", "size", "mode", "nlink", "uid", "gid", "rdev", "mtime"),
    *("payload", "content", "digest", "xattr"),
)
_NAMED_ESCAPES = {b"\\": b"\\", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([\\nrt])|)")
_BACK = {value: b"\\" + name for name, value in _NAMED_ESCAPES.items()}
_SPECIAL = re.compile(rb"[^!-~]|[\\=]")
#: Bytes without need of an escape: text is plain if nothing is left without these.
_PLAIN = bytes(set(range(0x21, 0x7F)) - {ord("\\")})
_PLAIN_IN_XATTR = bytes(set(_PLAIN) - {ord("=")})


class LineError(Exception):
    """An error in a line with its column; the reader adds the number of the line.

    Args:
        column: Index of the column, from 11 on an xattr.
        message: What is wrong.
        at: Offset within the column.
    """

    def __init__(self, column: int, message: str, at: int = 0) -> None:
        super().__init__(message)
        self.column = column
        self.at = at

    def position(self, line: bytes) -> str:
        """Return where in the line this is, for people."""
        before = line.split(b" ")[: self.column]
        number = sum(map(len, before)) + len(before) + self.at + 1
        # A column that is missing would begin behind the line.
        return f"column {min(number, len(line) + 1)} ({NAMES[min(self.column, COLUMNS)]})"


def escape(raw: bytes) -> bytes:
    """Return the text of a path."""
    if not raw.translate(None, _PLAIN):
        return raw
    return _SPECIAL.sub(lambda m: m[0] if m[0] == b"=" else _escape_one(m), raw)


def escape_optional(raw: bytes) -> bytes:
    """Return the text of a column in which ``-`` stands for "none"."""
    if raw == b"-":
        return b"\\x2d"
    return escape(raw) or b"-"


def escape_in_xattr(raw: bytes) -> bytes:
    """Return the text of an xattr's name or value."""
    return _SPECIAL.sub(_escape_one, raw) if raw.translate(None, _PLAIN_IN_XATTR) else raw


def _escape_one(match: re.Match[bytes]) -> bytes:
    return _BACK.get(match[0]) or b"\\x%02x" % match[0][0]


def unescape(text: bytes, column: int, at: int = 0) -> bytes:
    """Return the bytes of an escaped text.

    Raises:
        LineError: a backslash does not begin an escape.
    """
    if b"\\" not in text:
        return text

    def one(match: re.Match[bytes]) -> bytes:
        if match[1] is not None:
            return bytes.fromhex(match[1].decode())
        if match[2] is not None:
            return _NAMED_ESCAPES[match[2]]
        raise LineError(column, "a backslash that begins no escape", at + match.start())

    return _ESCAPE.sub(one, text)


def optional(text: bytes, column: int) -> bytes | None:
    """Return the bytes of an optional column, or None for ``-``.

    Raises:
        LineError: the column is empty, or contains a broken escape.
    """
    if not text:
        raise LineError(column, "empty column")
    return None if text == b"-" else unescape(text, column)


#: SIZE, file type, RDEV, PAYLOAD, CONTENT, DIGEST.
Columns = tuple[int, int, int, bytes, bytes, bytes]
DIRECTORY_COLUMNS: Columns = 0, stat.S_IFDIR, 0, b"-", b"-", b"-"


def columns_of(content: Content) -> Columns:
    """Return the columns for the content of a leaf."""
    size, rdev, payload, text, digest = 0, 0, b"-", b"-", b"-"
    match content:
        case External():
            size = content.size_bytes
            payload = escape_optional(content.object_path)
            digest = content.digest.hex.encode()
        case Inline():
            size = len(content.data)
            text = escape_optional(content.data)
        case Unverified():
            size = content.size_bytes
            payload = escape_optional(content.path)
        case Sparse():
            size = content.size_bytes
        case Symlink():
            size = len(content.target)
            payload = escape_optional(content.target)
        case CharDevice() | BlockDevice():
            rdev = content.rdev
        case Fifo() | Socket():
            pass
        case _:
            assert_never(content)
    return size, kind_of(content).mode_bits, rdev, payload, text, digest


def format_line(
    name: bytes,
    nlink: int,
    meta: Stat,
    columns: Columns,
    *,
    link: bytes = b"",
    sort_xattrs: bool = True,
) -> bytes:
    """Return a line; ``link`` is the mark of a second name."""
    size, file_type, rdev, payload, content, digest = columns
    xattrs = b""
    if meta.xattrs:
        items = sorted(meta.xattrs.items()) if sort_xattrs else meta.xattrs.items()
        xattrs = b"".join(
            [b" %s=%s" % (escape_in_xattr(key), escape_in_xattr(value)) for key, value in items]
        )
    return b"%s %d %s%o %d %d %d %d %d.%d %s %s %s%s\n" % (
        name,
        size,
        link,
        file_type | meta.mode & 0o7777,
        nlink,
        meta.uid,
        meta.gid,
        rdev,
        meta.mtime_s,
        meta.mtime_ns,
        payload,
        content,
        digest,
        xattrs,
    )
