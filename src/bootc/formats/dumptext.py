r"""The text of dumpfile lines: columns, escapes, and what the C tools forgive.

Bytes outside ``!`` to ``~`` are escaped as ``\xHH`` or ``\\ \n \r \t``, in xattrs ``=``,
too. ``-`` stands for "none", so a lone dash is escaped where that can be.

Source: composefs-dump(5); the behaviour of ``mkcomposefs`` 1.0.8 for :func:`loosen`.
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
    """What is wrong with a line, and in which column; the reader knows which line.

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
    """Return what a text stands for.

    Raises:
        LineError: a backslash begins no escape.
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
    """Return what an optional column stands for.

    Raises:
        LineError: it is empty, or holds a broken escape.
    """
    if not text:
        raise LineError(column, "empty column")
    return None if text == b"-" else unescape(text, column)


#: SIZE, file type, RDEV, PAYLOAD, CONTENT, DIGEST.
Columns = tuple[int, int, int, bytes, bytes, bytes]


def columns_of(content: Content) -> Columns:
    """Return the columns that tell the content of a leaf."""
    none = b"-"
    match content:
        case External():
            digest = content.digest.hex.encode()
            if content.path is None:
                path = content.digest.object_path.encode()
            else:
                path = escape_optional(content.path)
            return content.size_bytes, stat.S_IFREG, 0, path, none, digest
        case Inline():
            text = escape_optional(content.data)
            return len(content.data), stat.S_IFREG, 0, none, text, none
        case Unverified():
            path = escape_optional(content.path)
            return content.size_bytes, stat.S_IFREG, 0, path, none, none
        case Sparse():
            return content.size_bytes, stat.S_IFREG, 0, none, none, none
        case Symlink():
            target = escape_optional(content.target)
            return len(content.target), stat.S_IFLNK, 0, target, none, none
        case CharDevice():
            return 0, stat.S_IFCHR, content.rdev, none, none, none
        case BlockDevice():
            return 0, stat.S_IFBLK, content.rdev, none, none, none
        case Fifo():
            return 0, stat.S_IFIFO, 0, none, none, none
        case Socket():
            return 0, stat.S_IFSOCK, 0, none, none, none
        case _:
            assert_never(content)


def format_line(
    name: bytes, nlink: int, link: bytes, meta: Stat, columns: Columns, *, as_c: bool
) -> bytes:
    """Return a line; ``link`` is the mark of a second name, xattrs are sorted unless ``as_c``."""
    size, file_type, rdev, payload, content, digest = columns
    xattrs = b""
    if meta.xattrs:
        items = meta.xattrs.items() if as_c else sorted(meta.xattrs.items())
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


def complete(columns: list[bytes]) -> None:
    """Add the columns that ``mkcomposefs`` does without, and normalise the path."""
    if len(columns) > COLUMNS and not columns[-1]:
        del columns[-1]  # a space at the end of the line
    columns += [b""] * (COLUMNS - len(columns))
    path = columns[PATH]
    # What would be no path of a file stays as it is, to be refused.
    if path and not path.endswith(b"/"):
        columns[PATH] = normal_path(path)


def normal_path(path: bytes) -> bytes:
    """Return the strict form of a path as the C tools take it: slashes only separate."""
    if path.startswith(b"/") and b"//" not in path and not path.endswith(b"/"):
        return path
    return b"/" + b"/".join(filter(None, path.split(b"/")))


def loosen(columns: list[bytes], file_type: int, size: int) -> None:
    """Blank the columns that ``mkcomposefs`` does not look at for this type of file.

    Raises:
        LineError: there is content, and not as much as SIZE says.
    """
    content = columns[CONTENT]
    if content != b"-":
        length = len(unescape(content, CONTENT))
        if length != size:
            raise LineError(CONTENT, f"content of {length} bytes where SIZE says {size}")
    if file_type not in (stat.S_IFCHR, stat.S_IFBLK):
        columns[RDEV] = b"0"
    if file_type != stat.S_IFREG:
        columns[CONTENT] = columns[DIGEST] = b"-"
        if file_type != stat.S_IFLNK:
            columns[PAYLOAD] = b"-"
    elif content != b"-" or size == 0:
        columns[CONTENT] = content or b"-"
        columns[PAYLOAD] = columns[DIGEST] = b"-"
    else:
        columns[PAYLOAD] = columns[PAYLOAD] or b"-"
        columns[DIGEST] = columns[DIGEST].lower()
