"""Dumpfiles as ``mkcomposefs`` takes them and ``composefs-info dump`` prints them.

The reader refuses a few lines that ``mkcomposefs`` takes: numbers that overflow, NULs in
names, and broken digests. There the C tool reads something else than is written.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bootc.formats.digest import Digest
from bootc.formats.dumpfile import MAX_U64, Parser, count_links, located, parse_number
from bootc.formats.dumptext import (
    COLUMNS,
    CONTENT,
    DIGEST,
    DIRECTORY_COLUMNS,
    MODE,
    NLINK,
    PATH,
    PAYLOAD,
    RDEV,
    SIZE,
    LineError,
    columns_of,
    escape,
    format_line,
    unescape,
)
from bootc.formats.libcomposefs.tree import CTree, Stated
from bootc.formats.tree import Content, Directory, External, Fifo, Leaf, Node, Redirected, Stat
from bootc.printable import shown


def write_dumpfile(tree: CTree) -> Iterator[bytes]:
    """Yield the lines of the tree, each ending in a newline.

    Sizes of directories, link counts and the order of xattrs are those of the source. The
    line of a second name repeats all columns of the first one.
    """
    links = count_links(tree.root)
    first_names: dict[Node, bytes] = {}
    for path, node in tree.root.walk():
        name = escape(path)
        # The counts of the source come first: the tree may be a part of the image only.
        stated = tree.stated.get(node)
        nlink = stated.nlink if stated else links.get(id(node), 1)
        link = b""
        if isinstance(node, Directory):
            columns = DIRECTORY_COLUMNS
            if stated:
                columns = (stated.size_bytes, *columns[1:])
        else:
            columns = columns_of(node.content)
            first = first_names.setdefault(node, name)
            if first is not name:
                link = b"@"
                columns = (*columns[:3], first, *columns[4:])
        yield format_line(name, nlink, node.stat, columns, link=link, sort_xattrs=False)


def parse_dumpfile(lines: Iterable[bytes]) -> CTree:
    """Read a tree; a line may or may not end in a newline.

    Raises:
        DumpfileError: a line breaks the grammar. The message has line and column.
    """
    parser = _Parser()
    root = parser.parse(lines)
    parser.resolve_links()
    return CTree(root, parser.stated)


@dataclass(frozen=True, slots=True)
class _Link:
    """A hard link whose target may come later."""

    path: bytes
    directory: Directory
    name: bytes
    target: bytes
    #: For messages.
    number: int
    line: bytes


#: Keeps the place of a hard link until all lines are read.
_RESERVED = Leaf(Stat(), Fifo())


class _Parser(Parser):
    mode_bits = 32
    xattrs_may_repeat = True

    def __init__(self) -> None:
        super().__init__()
        self.stated: dict[Node, Stated] = {}
        self._links: list[_Link] = []
        self._current = 0, b""

    def line(self, line: bytes, number: int) -> None:
        self._current = number, line
        super().line(line, number)

    def split(self, line: bytes) -> list[bytes]:
        columns = line.split(b" ")
        _complete(columns)
        return columns

    def hard_link(
        self, directory: Directory, name: bytes, path: bytes, columns: list[bytes]
    ) -> None:
        target = unescape(columns[PAYLOAD], PAYLOAD)
        file_type, _ = self.modes[columns[MODE][1:]]
        if file_type == stat.S_IFDIR:
            raise LineError(MODE, "a directory cannot be a hard link")
        directory.entries[name] = _RESERVED
        self._links.append(_Link(path, directory, name, target, *self._current))

    def node(
        self, directory: Directory | None, name: bytes, path: bytes, columns: list[bytes]
    ) -> None:
        file_type, _ = self.modes[columns[MODE]]
        _loosen(columns, file_type, parse_number(columns[SIZE], SIZE, MAX_U64))
        super().node(directory, name, path, columns)
        nlink = self.nlinks[columns[NLINK]]
        if nlink != 1 and file_type != stat.S_IFDIR:
            self.stated[self.leaves[path]] = Stated(nlink, home=directory, name=name)

    def content(self, file_type: int, size: int, nlink: int, columns: list[bytes]) -> Content:
        # Whiteouts may be hard links here: their link count is no reason to refuse them.
        return super().content(file_type, size, 1, columns)

    def redirected(self, digest: Digest, size: int, payload: bytes | None) -> External:
        return Redirected(digest, size, payload or b"")

    def resolve_links(self) -> None:
        """Put the files where hard links stand.

        Raises:
            DumpfileError: a link leads nowhere, to a directory, or only to other links.
        """
        waiting: dict[bytes, list[_Link]] = {}
        for link in self._links:
            waiting.setdefault(_normal_path(link.target), []).append(link)
        # From the files outwards, so that links to links cost nothing more.
        arrived = [(path, self.leaves[path]) for path in waiting if path in self.leaves]
        for path, leaf in arrived:
            parent, _, name = path.rpartition(b"/")
            if leaf not in self.stated:
                self.stated[leaf] = Stated(1, home=self.directories[parent], name=name)
            for link in waiting.pop(path):
                link.directory.entries[link.name] = leaf
                if link.path in waiting:
                    arrived.append((link.path, leaf))
        for links in waiting.values():
            exc = LineError(PAYLOAD, f"{shown(links[0].target)}: no file has this as its name")
            raise located(links[0].number, links[0].line, exc)


def _complete(columns: list[bytes]) -> None:
    """Add the columns that ``mkcomposefs`` allows to be absent, and normalise the path."""
    if len(columns) > COLUMNS and not columns[-1]:
        del columns[-1]  # a space at the end of the line
    columns += [b""] * (COLUMNS - len(columns))
    path = columns[PATH]
    # Other text is no path of a file; the parser refuses it.
    if path and not path.endswith(b"/"):
        columns[PATH] = _normal_path(path)


def _normal_path(path: bytes) -> bytes:
    """Return the strict form of a path as the C tools take it: slashes only separate."""
    if path.startswith(b"/") and b"//" not in path and not path.endswith(b"/"):
        return path
    return b"/" + b"/".join(filter(None, path.split(b"/")))


def _loosen(columns: list[bytes], file_type: int, size: int) -> None:
    """Blank the columns that ``mkcomposefs`` ignores for this type of file.

    Raises:
        LineError: the length of the content is not SIZE.
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
