"""composefs dumpfiles: a tree as text, one line a name.

A line has eleven columns, then one ``key=value`` column for each xattr::

    PATH SIZE MODE NLINK UID GID RDEV MTIME PAYLOAD CONTENT DIGEST

A second name of a file has a mode that begins with ``@`` and the first name as
payload. Lines are ordered depth first, names bytewise. ``dumptext`` has the escapes.

Source: composefs-dump(5). Parsing is strict, as in composefs-rs, with two liberties of
the C tools: content up to 5000 bytes, and times before 1970. In the C dialect it takes
what ``mkcomposefs`` takes, but for numbers that overflow, NULs in names and digests that
are none, where C reads something else than is written. What only concerns images
(lengths of names and values, sizes of files) is checked where images are written.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from bootc.errors import Error
from bootc.formats.dialect import Dialect
from bootc.formats.digest import Digest, DigestError
from bootc.formats.dumptext import (
    COLUMNS,
    CONTENT,
    DIGEST,
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
    complete,
    escape,
    format_line,
    loosen,
    normal_path,
    optional,
    unescape,
)
from bootc.formats.tree import (
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
    Stated,
    Symlink,
    Unverified,
)
from bootc.printable import shown

MAX_PATH_BYTES = 4096
MAX_CONTENT_BYTES = 5000

_MAX_U32 = 0xFFFFFFFF
_MAX_U64 = 0xFFFFFFFFFFFFFFFF
#: Also all the types there are.
_WHAT = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symlink",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a fifo",
    stat.S_IFSOCK: "a socket",
}

_T = TypeVar("_T")


class DumpfileError(Error):
    """A dumpfile breaks its grammar."""


def write_dumpfile(
    root: Directory, *, dialect: Dialect = Dialect.RUST, top: bytes = b"/"
) -> Iterator[bytes]:
    """Yield the lines of the tree, each ending in a newline, or those from ``top`` downwards.

    In the C dialect they are those of ``composefs-info dump``, given a tree that was read
    in that dialect: sizes of directories, link counts and the order of xattrs as found,
    and lines of second names that repeat everything.
    """
    as_c = dialect is Dialect.C
    links = _count_links(root)
    first_names: dict[int, bytes] = {}
    below = top.rstrip(b"/") + b"/"
    for path, node in root.walk():
        if path != top and not path.startswith(below):
            continue
        name = escape(path)
        nlink = links.get(id(node), 1)
        if isinstance(node, Directory):
            size = 0
            if as_c and node.stated:
                # What is shown may be a part of the image only.
                size, nlink = node.stated.size_bytes, node.stated.nlink
            columns = size, stat.S_IFDIR, 0, b"-", b"-", b"-"
            yield format_line(name, nlink, b"", node.stat, columns, as_c=as_c)
            continue
        first = first_names.setdefault(id(node), name)
        if as_c:
            columns = columns_of(node.content)
            link = b""
            if first is not name:
                link = b"@"
                columns = (*columns[:3], first, *columns[4:])
            nlink = node.stated.nlink if node.stated else nlink
            yield format_line(name, nlink, link, node.stat, columns, as_c=True)
        elif first is not name:
            yield b"%s 0 @120000 - - - - 0.0 %s - -\n" % (name, first)
        else:
            yield format_line(name, nlink, b"", node.stat, columns_of(node.content), as_c=False)


def _count_links(root: Directory) -> dict[int, int]:
    """Return link counts by identity: of directories, and of leaves with several names."""
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


def parse_dumpfile(lines: Iterable[bytes], *, dialect: Dialect = Dialect.RUST) -> Directory:
    """Read a tree; a line may or may not end in a newline.

    In the C dialect the tree also holds what the C tools write down again
    (:class:`bootc.formats.tree.Stated`).

    Raises:
        DumpfileError: a line breaks the grammar, or a path lacks its parent, appears
            twice, or names an impossible link target. The message has line and column.
    """
    parser = _Parser(as_c=dialect is Dialect.C)
    for number, line in enumerate(lines, 1):
        text = line.removesuffix(b"\n")
        try:
            parser.line(text, number)
        except LineError as exc:
            raise _located(number, text, exc) from None
    if parser.root is None:
        raise DumpfileError("dumpfile: no lines")
    parser.resolve_links()
    return parser.root


def _located(number: int, line: bytes, exc: LineError) -> DumpfileError:
    return DumpfileError(f"dumpfile line {number}, {exc.position(line)}: {exc}")


class _Memo(dict[bytes, _T], Generic[_T]):
    """Values of a column by their text: few differ, and looking up is quicker than parsing."""

    def __init__(self, parse: Callable[[bytes], _T]) -> None:
        super().__init__()
        self._parse = parse

    def __missing__(self, text: bytes) -> _T:
        value = self[text] = self._parse(text)
        return value


@dataclass(frozen=True, slots=True)
class _Link:
    """A hard link in the C dialect, whose target may come later."""

    path: bytes
    directory: Directory
    name: bytes
    target: bytes
    #: For messages.
    number: int
    line: bytes


#: Keeps the place of a hard link until all lines are read.
_RESERVED = Leaf(Stat(), Fifo())


class _Parser:
    def __init__(self, *, as_c: bool) -> None:
        self.root: Directory | None = None
        self._c = as_c
        #: By path without slash at the end: the root is the empty one.
        self._directories: dict[bytes, Directory] = {}
        #: First names of everything a hard link may point at.
        self._leaves: dict[bytes, Leaf] = {}
        self._links: list[_Link] = []
        self._modes = _Memo(partial(_mode, bits=32 if as_c else 16))
        self._nlinks = _Memo(partial(_number, column=NLINK, maximum=_MAX_U32))
        self._uids = _Memo(partial(_number, column=UID, maximum=_MAX_U32))
        self._gids = _Memo(partial(_number, column=GID, maximum=_MAX_U32))
        self._mtimes = _Memo(_mtime)

    def line(self, line: bytes, number: int) -> None:
        columns = line.split(b" ")
        if self._c:
            complete(columns)
        elif len(columns) < COLUMNS:
            raise LineError(len(columns) - 1, f"{len(columns)} columns, needs {COLUMNS}")
        path = unescape(columns[PATH], PATH)
        parent, slash, name = path.rpartition(b"/")
        directory = self._directories.get(parent)
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
            target = unescape(columns[PAYLOAD], PAYLOAD)
            if self._c:
                link = _Link(path, directory, name, target, number, line)
                self._postpone_link(columns[MODE], link)
            else:
                directory.entries[name] = self._link_target(target)
            return
        self._node(directory, name, path, columns)

    def _node(
        self, directory: Directory | None, name: bytes, path: bytes, columns: list[bytes]
    ) -> None:
        file_type, mode = self._modes[columns[MODE]]
        size = _number(columns[SIZE], SIZE, _MAX_U64)
        if self._c:
            loosen(columns, file_type, size)
        mtime_s, mtime_ns = self._mtimes[columns[MTIME]]
        nlink = self._nlinks[columns[NLINK]]
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
                self.root = self._directories[b""] = node
            else:
                directory.entries[name] = self._directories[path] = node
            return
        if directory is None:
            raise LineError(MODE, "/ is a directory")
        leaf = Leaf(meta, self._content(file_type, size, nlink, columns))
        if self._c and nlink != 1:
            leaf.stated = Stated(nlink, home=directory, name=name)
        directory.entries[name] = self._leaves[path] = leaf

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
        leaf = self._leaves.get(target)
        if leaf is None:
            what = f"{shown(target)}: no file above this line has this as its first name"
            raise LineError(PAYLOAD, what)
        if isinstance(leaf.content, CharDevice) and leaf.content.rdev == 0:
            raise LineError(PAYLOAD, "a whiteout (device 0:0) cannot be a hard link")
        return leaf

    def _postpone_link(self, mode: bytes, link: _Link) -> None:
        file_type, _ = self._modes[mode[1:]]
        if file_type == stat.S_IFDIR:
            raise LineError(MODE, "a directory cannot be a hard link")
        link.directory.entries[link.name] = _RESERVED
        self._links.append(link)

    def resolve_links(self) -> None:
        """Put the files where hard links of the C dialect stand.

        Raises:
            DumpfileError: a link leads nowhere, to a directory, or only to other links.
        """
        waiting: dict[bytes, list[_Link]] = {}
        for link in self._links:
            waiting.setdefault(normal_path(link.target), []).append(link)
        # From the files outwards, so that links to links cost nothing more.
        arrived = [(path, self._leaves[path]) for path in waiting if path in self._leaves]
        for path, leaf in arrived:
            parent, _, name = path.rpartition(b"/")
            if leaf.stated is None:
                leaf.stated = Stated(1, home=self._directories[parent], name=name)
            for link in waiting.pop(path):
                link.directory.entries[link.name] = leaf
                if link.path in waiting:
                    arrived.append((link.path, leaf))
        for links in waiting.values():
            exc = LineError(PAYLOAD, f"{shown(links[0].target)}: no file has this as its name")
            raise _located(links[0].number, links[0].line, exc)

    def _xattrs(self, columns: list[bytes]) -> dict[bytes, bytes]:
        xattrs: dict[bytes, bytes] = {}
        for number in range(COLUMNS, len(columns)):
            key, equals, value = columns[number].partition(b"=")
            if not key or not equals:
                raise LineError(number, f"xattr {shown(columns[number])} is not key=value")
            name = unescape(key, number)
            if name in xattrs and not self._c:
                raise LineError(number, f"xattr {shown(name)} appears twice")
            xattrs[name] = unescape(value, number, len(key) + 1)
        return xattrs

    def _content(self, file_type: int, size: int, nlink: int, columns: list[bytes]) -> Content:
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
            rdev = _number(columns[RDEV], RDEV, _MAX_U32)
            if file_type == stat.S_IFBLK:
                return BlockDevice(rdev)
            if rdev == 0 and nlink > 1 and not self._c:
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
            if self._c:
                return External(parsed, size, payload or b"")
            raise LineError(PAYLOAD, "the payload is not the object its digest names")
        if payload is not None:
            return Unverified(payload, size)
        return Sparse(size) if size else Inline(b"")


#: No names of directory entries.
_IMPOSSIBLE = (b"", b".", b"..")


def _mode(text: bytes, bits: int) -> tuple[int, int]:
    """Return file type and permissions."""
    mode = _number(text, MODE, (1 << bits) - 1, base=8)
    file_type = stat.S_IFMT(mode)
    if file_type not in _WHAT:
        raise LineError(MODE, f"mode {shown(text)} has no file type")
    return file_type, mode & 0o7777


def _mtime(text: bytes) -> tuple[int, int]:
    seconds, dot, nanoseconds = text.partition(b".")
    if not dot:
        raise LineError(MTIME, f"mtime {shown(text)} is not SECONDS.NANOSECONDS")
    negative = seconds.startswith(b"-")
    mtime_s = _number(seconds[1:] if negative else seconds, MTIME, (1 << 63) - 1)
    mtime_ns = _number(nanoseconds, MTIME, 10**9 - 1)
    return -mtime_s if negative else mtime_s, mtime_ns


def _only_for(
    file_type: int,
    columns: list[bytes],
    *,
    rdev: bool = False,
    payload: bool = False,
    content: bool = False,
) -> None:
    """Refuse what this type of file cannot have."""
    if not rdev and columns[RDEV] != b"0" and _number(columns[RDEV], RDEV, _MAX_U64):
        raise LineError(RDEV, f"{_WHAT[file_type]} has no device number")
    if not payload and columns[PAYLOAD] != b"-":
        raise LineError(PAYLOAD, f"{_WHAT[file_type]} has no payload")
    if not content and columns[CONTENT] != b"-":
        raise LineError(CONTENT, f"{_WHAT[file_type]} has no content")
    if not content and columns[DIGEST] != b"-":
        raise LineError(DIGEST, f"{_WHAT[file_type]} has no content")


def _number(text: bytes, column: int, maximum: int, *, base: int = 10) -> int:
    # bytes.isdigit() knows ASCII digits only; int() would also take signs and underscores.
    if text.isdigit() and len(text) <= 20:
        try:
            value = int(text, base)
        except ValueError:
            value = maximum + 1
        if value <= maximum:
            return value
    raise LineError(column, f"impossible {NAMES[column]} {shown(text[:40])}")
