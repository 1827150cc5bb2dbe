"""Reads and writes composefs dumpfiles: a tree as text, one line per name.

A line has eleven columns, then one ``key=value`` column for each xattr::

    PATH SIZE MODE NLINK UID GID RDEV MTIME PAYLOAD CONTENT DIGEST

A second name of a file has a mode that begins with ``@`` and the first name as
payload. Lines are ordered depth first, names bytewise. ``dumptext`` has the escapes.

The parser is strict, as in composefs-rs. From the C tools it takes content of up to 5000
bytes and times before 1970. ``libcomposefs.dumpfile`` has a parser that takes more. The
limits of images (lengths of names and values, sizes of files) are checked where images
are written.

Source: composefs-dump(5).
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Generic, TypeVar

from bootc.errors import Error
from bootc.formats.digest import Digest, DigestError
from bootc.formats.dumptext import (
    COLUMNS,
    CONTENT,
    DIGEST,
    DIRECTORY_COLUMNS,
    GID,
    MODE,
    MTIME,
    NAMES,
    NLINK,
    PATH,
    PAYLOAD,
    RDEV,
    SIZE,
    UID,
    LineError,
    columns_of,
    escape,
    format_line,
    optional,
    unescape,
)
from bootc.formats.tree import (
    KINDS_BY_MODE,
    BlockDevice,
    CharDevice,
    Content,
    Directory,
    External,
    Fifo,
    Inline,
    Leaf,
    Socket,
    Sparse,
    Stat,
    Symlink,
    Unverified,
)
from bootc.printable import shown

MAX_PATH_BYTES = 4096
MAX_CONTENT_BYTES = 5000

_MAX_U32 = 0xFFFFFFFF
MAX_U64 = 0xFFFFFFFFFFFFFFFF

_T = TypeVar("_T")


class DumpfileError(Error):
    """A dumpfile breaks its grammar."""


def write_dumpfile(root: Directory, *, top: bytes = b"/") -> Iterator[bytes]:
    """Yield the lines of the tree, each ending in a newline, or those from ``top`` downwards."""
    links = count_links(root)
    first_names: dict[int, bytes] = {}
    below = top.rstrip(b"/") + b"/"
    for path, node in root.walk():
        if path != top and not path.startswith(below):
            continue
        name = escape(path)
        nlink = links.get(id(node), 1)
        if isinstance(node, Directory):
            yield format_line(name, nlink, node.stat, DIRECTORY_COLUMNS)
            continue
        first = first_names.setdefault(id(node), name)
        if first is not name:
            yield b"%s 0 @120000 - - - - 0.0 %s - -\n" % (name, first)
        else:
            yield format_line(name, nlink, node.stat, columns_of(node.content))


def count_links(root: Directory) -> dict[int, int]:
    """Return link counts by ``id``: of directories, and of leaves with several names."""
    links: dict[int, int] = {}
    seen: set[int] = set()
    pending = [root]
    for directory in pending:
        subdirectories = 0
        for node in directory.entries.values():
            if isinstance(node, Directory):
                subdirectories += 1
                pending.append(node)
            elif id(node) in seen:
                links[id(node)] = links.get(id(node), 1) + 1
            else:
                seen.add(id(node))
        links[id(directory)] = 2 + subdirectories
    return links


def parse_dumpfile(lines: Iterable[bytes]) -> Directory:
    """Read a tree; a line may or may not end in a newline.

    Raises:
        DumpfileError: a line breaks the grammar, or a path lacks its parent, appears
            twice, or names an impossible link target. The message has line and column.
    """
    return Parser().parse(lines)


def located(number: int, line: bytes, exc: LineError) -> DumpfileError:
    """Return the error of a line, with its place."""
    return DumpfileError(f"dumpfile line {number}, {exc.position(line)}: {exc}")


class _Memo(dict[bytes, _T], Generic[_T]):
    """Values of a column by their text: few differ, and a look-up is faster than parsing."""

    def __init__(self, parse: Callable[[bytes], _T]) -> None:
        super().__init__()
        self._parse = parse

    def __missing__(self, text: bytes) -> _T:
        value = self[text] = self._parse(text)
        return value


class Parser:
    """Reads one dumpfile. ``libcomposefs.dumpfile`` has a more tolerant kind."""

    mode_bits = 16
    #: Whether a later xattr of the same name replaces the earlier one.
    xattrs_may_repeat = False

    def __init__(self) -> None:
        self.root: Directory | None = None
        #: By path without slash at the end: the root is the empty one.
        self.directories: dict[bytes, Directory] = {}
        #: First names of everything a hard link may point at.
        self.leaves: dict[bytes, Leaf] = {}
        self.modes = _Memo(partial(_mode, bits=self.mode_bits))
        self.nlinks = _Memo(partial(parse_number, column=NLINK, maximum=_MAX_U32))
        self._uids = _Memo(partial(parse_number, column=UID, maximum=_MAX_U32))
        self._gids = _Memo(partial(parse_number, column=GID, maximum=_MAX_U32))
        self._mtimes = _Memo(_mtime)

    def parse(self, lines: Iterable[bytes]) -> Directory:
        """Read all lines; see :func:`parse_dumpfile`."""
        for number, line in enumerate(lines, 1):
            text = line.removesuffix(b"\n")
            try:
                self.line(text, number)
            except LineError as exc:
                raise located(number, text, exc) from None
        if self.root is None:
            raise DumpfileError("dumpfile: no lines")
        return self.root

    def line(self, line: bytes, number: int) -> None:
        """Read a line; ``number`` counts from 1."""
        columns = self.split(line)
        path = unescape(columns[PATH], PATH)
        parent, slash, name = path.rpartition(b"/")
        directory = self.directories.get(parent)
        if directory is None or not slash or not name:
            directory = None
            self._check_orphan(path)
        elif name in _IMPOSSIBLE or b"\0" in name or len(path) > MAX_PATH_BYTES:
            raise LineError(PATH, f"impossible path {shown(path)}")
        elif name in directory.entries:
            raise LineError(PATH, f"{shown(path)} appears twice")
        if columns[MODE].startswith(b"@"):
            if directory is None:
                raise LineError(MODE, "/ is a directory")
            self.hard_link(directory, name, path, columns)
            return
        self.node(directory, name, path, columns)

    def split(self, line: bytes) -> list[bytes]:
        """Return the columns of a line, at least :data:`COLUMNS`."""
        columns = line.split(b" ")
        if len(columns) < COLUMNS:
            raise LineError(len(columns) - 1, f"{len(columns)} columns, needs {COLUMNS}")
        return columns

    def hard_link(
        self, directory: Directory, name: bytes, path: bytes, columns: list[bytes]
    ) -> None:
        """Give one more name to a file of an earlier line."""
        directory.entries[name] = self._link_target(unescape(columns[PAYLOAD], PAYLOAD))

    def node(
        self, directory: Directory | None, name: bytes, path: bytes, columns: list[bytes]
    ) -> None:
        """Read a line that is no hard link; there is no ``directory`` above the root."""
        file_type, mode = self.modes[columns[MODE]]
        size = parse_number(columns[SIZE], SIZE, MAX_U64)
        mtime_s, mtime_ns = self._mtimes[columns[MTIME]]
        nlink = self.nlinks[columns[NLINK]]
        meta = Stat(
            mode,
            self._uids[columns[UID]],
            self._gids[columns[GID]],
            mtime_s,
            mtime_ns,
            self._xattrs(columns) if len(columns) > COLUMNS else {},
        )
        if file_type == stat.S_IFDIR:
            _only_for(file_type, columns)
            node = Directory(meta)
            if directory is None:
                self.root = self.directories[b""] = node
            else:
                directory.entries[name] = self.directories[path] = node
            return
        if directory is None:
            raise LineError(MODE, "/ is a directory")
        leaf = Leaf(meta, self.content(file_type, size, nlink, columns))
        directory.entries[name] = self.leaves[path] = leaf

    def _check_orphan(self, path: bytes) -> None:
        """Refuse a path that is not below a known directory, unless it is the root's."""
        if path == b"/" and self.root is None:
            return
        names = path.split(b"/")
        if (
            path == b"/"
            or not path.startswith(b"/")
            or any(name in _IMPOSSIBLE or b"\0" in name for name in names[1:])
            or len(path) > MAX_PATH_BYTES
        ):
            what = "/ appears twice" if path == b"/" else f"impossible path {shown(path)}"
            raise LineError(PATH, what)
        if self.root is None:
            raise LineError(PATH, "/ must come first")
        raise LineError(PATH, f"the parent of {shown(path)} is no directory above this line")

    def _link_target(self, target: bytes) -> Leaf:
        leaf = self.leaves.get(target)
        if leaf is None:
            what = f"{shown(target)}: no file above this line has this as its first name"
            raise LineError(PAYLOAD, what)
        if isinstance(leaf.content, CharDevice) and leaf.content.rdev == 0:
            raise LineError(PAYLOAD, "a whiteout (device 0:0) cannot be a hard link")
        return leaf

    def _xattrs(self, columns: list[bytes]) -> dict[bytes, bytes]:
        xattrs: dict[bytes, bytes] = {}
        for number in range(COLUMNS, len(columns)):
            key, equals, value = columns[number].partition(b"=")
            if not key or not equals:
                raise LineError(number, f"xattr {shown(columns[number])} is not key=value")
            name = unescape(key, number)
            if name in xattrs and not self.xattrs_may_repeat:
                raise LineError(number, f"xattr {shown(name)} appears twice")
            xattrs[name] = unescape(value, number, len(key) + 1)
        return xattrs

    def content(self, file_type: int, size: int, nlink: int, columns: list[bytes]) -> Content:
        """Return what the columns say of the content of a leaf."""
        if file_type == stat.S_IFREG:
            return self._file_content(size, columns)
        if file_type == stat.S_IFLNK:
            _only_for(file_type, columns, payload=True)
            target = optional(columns[PAYLOAD], PAYLOAD)
            if not target:
                raise LineError(PAYLOAD, "a symlink needs a target")
            return Symlink(target)
        if file_type in (stat.S_IFCHR, stat.S_IFBLK):
            _only_for(file_type, columns, rdev=True)
            rdev = parse_number(columns[RDEV], RDEV, _MAX_U32)
            if file_type == stat.S_IFBLK:
                return BlockDevice(rdev)
            if rdev == 0 and nlink > 1:
                raise LineError(NLINK, "a whiteout (device 0:0) cannot be a hard link")
            return CharDevice(rdev)
        _only_for(file_type, columns)
        return Fifo() if file_type == stat.S_IFIFO else Socket()

    def _file_content(
        self, size: int, columns: list[bytes]
    ) -> Inline | External | Unverified | Sparse:
        _only_for(stat.S_IFREG, columns, payload=True, content=True)
        payload = optional(columns[PAYLOAD], PAYLOAD)
        content = optional(columns[CONTENT], CONTENT)
        digest = optional(columns[DIGEST], DIGEST)
        if content is not None:
            if payload is not None or digest is not None:
                raise LineError(CONTENT, "a file has either content or a payload")
            if len(content) > MAX_CONTENT_BYTES:
                what = f"content of {len(content)} bytes, more than {MAX_CONTENT_BYTES}"
                raise LineError(CONTENT, what)
            return Inline(content)
        if digest is not None:
            try:
                parsed = Digest.from_hex(digest.decode("ascii", "replace"))
            except DigestError as exc:
                raise LineError(DIGEST, str(exc)) from None
            if payload == parsed.object_path.encode():
                return External(parsed, size)
            return self.redirected(parsed, size, payload)
        if payload is not None:
            return Unverified(payload, size)
        return Sparse(size) if size else Inline(b"")

    def redirected(self, digest: Digest, size: int, payload: bytes | None) -> External:
        """Return the content of a file whose payload is not the object of its digest."""
        raise LineError(PAYLOAD, "the payload is not the object its digest names")


#: No names of directory entries.
_IMPOSSIBLE = (b"", b".", b"..")


def _mode(text: bytes, bits: int) -> tuple[int, int]:
    """Return file type and permissions."""
    mode = parse_number(text, MODE, (1 << bits) - 1, base=8)
    file_type = stat.S_IFMT(mode)
    if file_type not in KINDS_BY_MODE:
        raise LineError(MODE, f"mode {shown(text)} has no file type")
    return file_type, mode & 0o7777


def _mtime(text: bytes) -> tuple[int, int]:
    seconds, dot, nanoseconds = text.partition(b".")
    if not dot:
        raise LineError(MTIME, f"mtime {shown(text)} is not SECONDS.NANOSECONDS")
    negative = seconds.startswith(b"-")
    mtime_s = parse_number(seconds[1:] if negative else seconds, MTIME, (1 << 63) - 1)
    mtime_ns = parse_number(nanoseconds, MTIME, 10**9 - 1)
    return -mtime_s if negative else mtime_s, mtime_ns


def _only_for(
    file_type: int,
    columns: list[bytes],
    *,
    rdev: bool = False,
    payload: bool = False,
    content: bool = False,
) -> None:
    """Refuse columns that this type of file cannot have."""
    if not rdev and columns[RDEV] != b"0" and parse_number(columns[RDEV], RDEV, MAX_U64):
        raise LineError(RDEV, f"a {KINDS_BY_MODE[file_type].label} has no device number")
    if not payload and columns[PAYLOAD] != b"-":
        raise LineError(PAYLOAD, f"a {KINDS_BY_MODE[file_type].label} has no payload")
    if not content and columns[CONTENT] != b"-":
        raise LineError(CONTENT, f"a {KINDS_BY_MODE[file_type].label} has no content")
    if not content and columns[DIGEST] != b"-":
        raise LineError(DIGEST, f"a {KINDS_BY_MODE[file_type].label} has no content")


def parse_number(text: bytes, column: int, maximum: int, *, base: int = 10) -> int:
    """Return the number that a column holds.

    Raises:
        LineError: the column holds no number from 0 to ``maximum``.
    """
    # bytes.isdigit() knows ASCII digits only; int() would also take signs and underscores.
    if text.isdigit() and len(text) <= 20:
        try:
            value = int(text, base)
        except ValueError:
            value = maximum + 1
        if value <= maximum:
            return value
    raise LineError(column, f"impossible {NAMES[column]} {shown(text[:40])}")
