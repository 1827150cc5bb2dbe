r"""composefs dumpfiles: a tree as text, one line a name.

A line has eleven columns, then one ``key=value`` column for each xattr::

    PATH SIZE MODE NLINK UID GID RDEV MTIME PAYLOAD CONTENT DIGEST

``-`` stands for "none". Bytes outside ``!`` to ``~`` are escaped as ``\xHH`` or
``\\ \n \r \t``. A second name of a file has a mode that begins with ``@`` and the
first name as payload. Lines are ordered depth first, names bytewise.

Source: composefs-dump(5). Parsing is strict, as in composefs-rs, with two liberties of
the C tools: content up to 5000 bytes, and times before 1970. What only concerns images
(lengths of names and values, sizes of files) is checked where images are written.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator
from typing import assert_never

from bootc.errors import Error
from bootc.formats.digest import Digest, DigestError
from bootc.formats.tree import (
    BlockDevice,
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Node,
    Socket,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)

MAX_PATH_BYTES = 4096
MAX_CONTENT_BYTES = 5000

_COLUMNS = 11
_NAMED_ESCAPES = {b"\\": b"\\", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|([\\nrt])|)")
_SPECIAL = re.compile(rb"[^!-~]|\\")
_SPECIAL_IN_XATTR = re.compile(rb"[^!-~]|[\\=]")
_BACK = {value: b"\\" + name for name, value in _NAMED_ESCAPES.items()}


class DumpfileError(Error):
    """A dumpfile breaks its grammar."""


def write_dumpfile(root: Directory) -> Iterator[bytes]:
    """Yield the lines of the tree, each ending in a newline."""
    links: dict[int, int] = {}
    for _, node in root.walk():
        links[id(node)] = links.get(id(node), 0) + 1
    first_names: dict[int, bytes] = {}
    for path, node in root.walk():
        name = _escape(path)
        if isinstance(node, Directory):
            nlink = 2 + sum(isinstance(child, Directory) for child in node.entries.values())
            yield _line(name, 0, stat.S_IFDIR, nlink, 0, node.stat, (b"-", b"-", b"-"))
        elif id(node) in first_names:
            target = first_names[id(node)]
            yield b"%s 0 @120000 - - - - 0.0 %s - -\n" % (name, target)
        else:
            first_names[id(node)] = name
            yield _leaf_line(name, node, links[id(node)])


def _leaf_line(name: bytes, leaf: Leaf, nlink: int) -> bytes:
    size = 0
    rdev = 0
    payload = inline = digest = b"-"
    content = leaf.content
    match content:
        case Inline():
            file_type, size = stat.S_IFREG, len(content.data)
            inline = _escape_optional(content.data)
        case External():
            file_type, size = stat.S_IFREG, content.size_bytes
            payload = content.digest.object_path.encode()
            digest = content.digest.hex.encode()
        case Unverified():
            file_type, size = stat.S_IFREG, content.size_bytes
            payload = _escape_optional(content.path)
        case Sparse():
            file_type, size = stat.S_IFREG, content.size_bytes
        case Symlink():
            file_type, size = stat.S_IFLNK, len(content.target)
            payload = _escape_optional(content.target)
        case CharDevice():
            file_type, rdev = stat.S_IFCHR, content.rdev
        case BlockDevice():
            file_type, rdev = stat.S_IFBLK, content.rdev
        case Fifo():
            file_type = stat.S_IFIFO
        case Socket():
            file_type = stat.S_IFSOCK
        case _:
            assert_never(content)
    return _line(name, size, file_type, nlink, rdev, leaf.stat, (payload, inline, digest))


def _line(
    name: bytes,
    size: int,
    file_type: int,
    nlink: int,
    rdev: int,
    meta: Stat,
    columns: tuple[bytes, bytes, bytes],
) -> bytes:
    fields = [
        b"%s %d %o %d" % (name, size, file_type | meta.mode & 0o7777, nlink),
        b"%d %d %d %d.%d" % (meta.uid, meta.gid, rdev, meta.mtime_s, meta.mtime_ns),
        *columns,
    ]
    fields += [
        b"%s=%s" % (_escape(key, _SPECIAL_IN_XATTR), _escape(value, _SPECIAL_IN_XATTR))
        for key, value in sorted(meta.xattrs.items())
    ]
    return b" ".join(fields) + b"\n"


def _escape(raw: bytes, special: re.Pattern[bytes] = _SPECIAL) -> bytes:
    return special.sub(lambda m: _BACK.get(m[0]) or b"\\x%02x" % m[0][0], raw)


def _escape_optional(raw: bytes) -> bytes:
    if raw == b"-":
        return b"\\x2d"
    return _escape(raw) or b"-"


def parse_dumpfile(lines: Iterable[bytes]) -> Directory:
    """Read a tree; a line may or may not end in a newline.

    Raises:
        DumpfileError: a line breaks the grammar, or a path lacks its parent, appears
            twice, or names an impossible link target.
    """
    parser = _Parser()
    for number, line in enumerate(lines, 1):
        try:
            parser.line(line.removesuffix(b"\n"))
        except _LineError as exc:
            raise DumpfileError(f"dumpfile line {number}: {exc}") from None
    if parser.root is None:
        raise DumpfileError("dumpfile: no lines")
    return parser.root


class _LineError(Exception):
    """What is wrong with a line; the caller knows which."""


class _Parser:
    def __init__(self) -> None:
        self.root: Directory | None = None
        self._directories: dict[bytes, Directory] = {}
        #: First names of everything a hard link may point at.
        self._leaves: dict[bytes, Leaf] = {}

    def line(self, line: bytes) -> None:
        columns = line.split(b" ")
        if len(columns) < _COLUMNS:
            raise _LineError(f"{len(columns)} columns, needs {_COLUMNS}")
        path = _path(_unescape(columns[0]), "path")
        if columns[2].startswith(b"@"):
            self._hard_link(path, columns[8])
            return
        mode = _number(columns[2], "mode", base=8, bits=16)
        meta = _stat(mode, columns)
        if stat.S_ISDIR(mode):
            _only_for("a directory", columns)
            directory = Directory(meta)
            self._add(path, directory)
            self._directories[path] = directory
        else:
            leaf = Leaf(meta, _content(mode, columns))
            self._add(path, leaf)
            self._leaves[path] = leaf

    def _add(self, path: bytes, node: Node) -> None:
        if path == b"/":
            if self.root is not None or not isinstance(node, Directory):
                raise _LineError("/ is a directory and appears once")
            self.root = node
            return
        if self.root is None:
            raise _LineError("/ must come first")
        parent, _, name = path.rpartition(b"/")
        directory = self._directories.get(parent or b"/")
        if directory is None:
            raise _LineError(f"the parent of {_show(path)} is no directory above this line")
        if name in directory.entries:
            raise _LineError(f"{_show(path)} appears twice")
        directory.entries[name] = node

    def _hard_link(self, path: bytes, payload: bytes) -> None:
        target = _path(_unescape(payload), "link target")
        leaf = self._leaves.get(target)
        if leaf is None:
            raise _LineError(f"{_show(target)}: no file above this line has this as its first name")
        if isinstance(leaf.content, CharDevice) and leaf.content.rdev == 0:
            raise _LineError("a whiteout (device 0:0) cannot be a hard link")
        self._add(path, leaf)


def _path(path: bytes, what: str) -> bytes:
    if not path.startswith(b"/") or len(path) > MAX_PATH_BYTES or b"\0" in path:
        raise _LineError(f"impossible {what} {_show(path[:300])}")
    names = path.split(b"/")[1:]
    if path != b"/" and any(name in (b"", b".", b"..") for name in names):
        raise _LineError(f"impossible {what} {_show(path)}")
    return path


def _stat(mode: int, columns: list[bytes]) -> Stat:
    seconds, dot, nanoseconds = columns[7].partition(b".")
    mtime_s = _number(seconds.removeprefix(b"-"), "mtime", bits=63)
    mtime_ns = _number(nanoseconds, "mtime", bits=32) if dot else 10**9
    if mtime_ns >= 10**9:
        raise _LineError(f"impossible mtime {_show(columns[7])}")
    _number(columns[3], "nlink", bits=32)
    return Stat(
        mode=mode & 0o7777,
        uid=_number(columns[4], "uid", bits=32),
        gid=_number(columns[5], "gid", bits=32),
        mtime_s=-mtime_s if seconds.startswith(b"-") else mtime_s,
        mtime_ns=mtime_ns,
        xattrs=_xattrs(columns[_COLUMNS:]),
    )


def _xattrs(columns: list[bytes]) -> dict[bytes, bytes]:
    xattrs = {}
    for column in columns:
        key, equals, value = column.partition(b"=")
        if not key or not equals:
            raise _LineError(f"xattr {_show(column[:300])} is not key=value")
        name = _unescape(key)
        if name in xattrs:
            raise _LineError(f"xattr {_show(name)} appears twice")
        xattrs[name] = _unescape(value)
    return xattrs


def _content(mode: int, columns: list[bytes]) -> Content:
    file_type = stat.S_IFMT(mode)
    if file_type == stat.S_IFREG:
        return _file_content(columns)
    if file_type == stat.S_IFLNK:
        _only_for("a symlink", columns, payload=True)
        target = _optional(columns[8])
        if not target:
            raise _LineError("a symlink needs a target")
        return Symlink(target)
    if file_type in (stat.S_IFCHR, stat.S_IFBLK):
        _only_for("a device", columns, rdev=True)
        rdev = _number(columns[6], "rdev", bits=32)
        if file_type == stat.S_IFBLK:
            return BlockDevice(rdev)
        if rdev == 0 and int(columns[3]) > 1:
            raise _LineError("a whiteout (device 0:0) cannot be a hard link")
        return CharDevice(rdev)
    if file_type == stat.S_IFIFO:
        _only_for("a fifo", columns)
        return Fifo()
    if file_type == stat.S_IFSOCK:
        _only_for("a socket", columns)
        return Socket()
    raise _LineError(f"mode {_show(columns[2])} has no file type")


def _file_content(columns: list[bytes]) -> Inline | External | Unverified | Sparse:
    size = _number(columns[1], "size")
    payload, content, digest = (_optional(column) for column in columns[8:_COLUMNS])
    _only_for("a regular file", columns, payload=True, content=True)
    if content is not None:
        if payload is not None or digest is not None:
            raise _LineError("a file has either content or a payload")
        if len(content) > MAX_CONTENT_BYTES:
            raise _LineError(f"content of {len(content)} bytes, more than {MAX_CONTENT_BYTES}")
        return Inline(content)
    if digest is not None:
        try:
            parsed = Digest.from_hex(digest.decode("ascii", "replace"))
        except DigestError as exc:
            raise _LineError(str(exc)) from None
        if payload != parsed.object_path.encode():
            raise _LineError("the payload is not the object its digest names")
        return External(parsed, size)
    if payload is not None:
        return Unverified(payload, size)
    return Sparse(size) if size else Inline(b"")


def _only_for(
    what: str,
    columns: list[bytes],
    *,
    rdev: bool = False,
    payload: bool = False,
    content: bool = False,
) -> None:
    """Refuse what this type of file cannot have."""
    if not rdev and _number(columns[6], "rdev") != 0:
        raise _LineError(f"{what} has no device number")
    if not payload and columns[8] != b"-":
        raise _LineError(f"{what} has no payload")
    if not content and (columns[9] != b"-" or columns[10] != b"-"):
        raise _LineError(f"{what} has no content")


def _number(text: bytes, what: str, *, base: int = 10, bits: int = 64) -> int:
    # bytes.isdigit() knows ASCII digits only; int() would also take signs and underscores.
    if text.isdigit() and len(text) <= 20:
        try:
            value = int(text, base)
        except ValueError:
            value = 1 << bits
        if value < 1 << bits:
            return value
    raise _LineError(f"impossible {what} {_show(text[:40])}")


def _optional(column: bytes) -> bytes | None:
    if not column:
        raise _LineError("empty column")
    return None if column == b"-" else _unescape(column)


def _unescape(text: bytes) -> bytes:
    return _ESCAPE.sub(_unescape_one, text) if b"\\" in text else text


def _unescape_one(match: re.Match[bytes]) -> bytes:
    if match[1] is not None:
        return bytes.fromhex(match[1].decode())
    if match[2] is not None:
        return _NAMED_ESCAPES[match[2]]
    raise _LineError("a backslash that begins no escape")


def _show(raw: bytes) -> str:
    return repr(raw)[1:]
