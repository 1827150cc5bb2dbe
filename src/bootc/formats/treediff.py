"""Compares two trees and groups the differences: the reasons why two digests differ.

Promises: there is no difference exactly if every format would store the two trees alike,
so equal trees have equal image ids. Names are compared one by one, in the order of a
dumpfile. Time and memory grow with the number of names and not with their depth.

An entry that only one tree has is one difference; :attr:`Difference.entries` counts the
entries below it. Hard links are compared among the names that both trees have: each name
by the first name of the same file.

>>> from bootc.formats.tree import Directory, Stat
>>> for found in compare(Directory(Stat(0o755)), Directory(Stat(0o700))):
...     print(found.path, found.aspect.value, found.a, found.b)
b'/' mode 0755 0700
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import assert_never

from bootc.formats import tree
from bootc.formats.verity import verity_digest
from bootc.printable import printable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN_DIGITS = 12
_SHOWN_BYTES = 120


class Aspect(enum.Enum):
    """The ways in which two entries can differ, in the order of reports."""

    ENTRY = "entry"
    TYPE = "file-type"
    CONTENT = "content"
    #: The same content, kept in the image on one side and as an object on the other.
    STORAGE = "storage"
    #: Objects named by different hashes: their contents cannot be compared.
    ALGORITHM = "digest-algorithm"
    TARGET = "symlink-target"
    DEVICE = "device-number"
    MODE = "mode"
    OWNER = "owner"
    MTIME = "mtime"
    #: The seconds are equal.
    MTIME_NS = "mtime-nanoseconds"
    XATTR = "xattr"
    LINKS = "hard-links"


#: The titles that are not the value of the aspect.
_TITLES = {
    Aspect.ENTRY: "entry missing",
    Aspect.STORAGE: "where content is kept",
    Aspect.ALGORITHM: "digest algorithm",
    Aspect.MTIME_NS: "mtime nanoseconds",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """One aspect of one name. A side is None when it has no such entry or xattr."""

    path: bytes
    aspect: Aspect
    a: str | None
    b: str | None
    is_directory: bool
    #: Of an xattr.
    name: bytes = b""
    #: How many entries this is about, and how many of them are directories.
    entries: int = 1
    directories: int = 0
    #: The first names of the file on either side, if it is about hard links.
    first_names: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class DifferenceGroup:
    """All differences of one class: of one aspect and, with xattrs, of one name."""

    aspect: Aspect
    name: bytes
    entries: int
    directories: int
    #: Entries of which the other side has nothing.
    only_a: int
    only_b: int
    examples: tuple[Difference, ...]

    @property
    def title(self) -> str:
        """The class in words."""
        if self.aspect is Aspect.XATTR:
            return f"xattr {printable(self.name)}"
        name: str = self.aspect.value
        return _TITLES.get(self.aspect, name.replace("-", " "))


def compare(a: tree.Directory, b: tree.Directory) -> Iterator[Difference]:
    """Yield the differences in the order of a dumpfile; none if the trees are equal."""
    first_a: dict[int, bytes] = {}
    first_b: dict[int, bytes] = {}
    stack: list[tuple[bytes, tree.Node | None, tree.Node | None]] = [(b"/", a, b)]
    while stack:
        path, x, y = stack.pop()
        if x is None or y is None:
            yield _one_sided(path, x, y)
            continue
        if x.stat != y.stat:
            yield from _metadata(path, x.stat, y.stat, is_directory=isinstance(x, tree.Directory))
        if isinstance(x, tree.Leaf) and isinstance(y, tree.Leaf):
            if x.content != y.content:
                yield _content(path, x.content, y.content)
            link_x = first_a.setdefault(id(x), path)
            link_y = first_b.setdefault(id(y), path)
            if link_x != link_y:
                yield _links(path, link_x, link_y)
            continue
        if isinstance(x, tree.Leaf) or isinstance(y, tree.Leaf):
            kinds = _kind(x), _kind(y)
            yield Difference(path, Aspect.TYPE, *kinds, isinstance(x, tree.Directory))
        below_x = x.entries if isinstance(x, tree.Directory) else {}
        below_y = y.entries if isinstance(y, tree.Directory) else {}
        prefix = b"/" if path == b"/" else path + b"/"
        stack += [
            (prefix + name, below_x.get(name), below_y.get(name))
            for name in sorted(below_x.keys() | below_y.keys(), reverse=True)
        ]


def summarise(differences: Iterable[Difference], examples: int = 5) -> tuple[DifferenceGroup, ...]:
    """Return the differences by class, each with its first ``examples``."""
    classes: dict[tuple[Aspect, bytes], list[Difference]] = {}
    for difference in differences:
        classes.setdefault((difference.aspect, difference.name), []).append(difference)
    order = list(Aspect)
    return tuple(
        DifferenceGroup(
            aspect,
            name,
            entries=sum(d.entries for d in members),
            directories=sum(d.directories for d in members),
            only_a=sum(d.entries for d in members if d.b is None),
            only_b=sum(d.entries for d in members if d.a is None),
            examples=tuple(members[:examples]),
        )
        for (aspect, name), members in sorted(
            classes.items(), key=lambda item: (order.index(item[0][0]), item[0][1])
        )
    )


def _one_sided(path: bytes, x: tree.Node | None, y: tree.Node | None) -> Difference:
    entries = directories = 0
    for node in (x, y):
        if isinstance(node, tree.Directory):
            for _, below in node.walk():
                entries += 1
                directories += isinstance(below, tree.Directory)
        elif node is not None:
            entries += 1
    return Difference(
        path,
        Aspect.ENTRY,
        None if x is None else _kind(x),
        None if y is None else _kind(y),
        is_directory=directories > 0,
        entries=entries,
        directories=directories,
    )


def _metadata(
    path: bytes, x: tree.Stat, y: tree.Stat, *, is_directory: bool
) -> Iterator[Difference]:
    def differ(aspect: Aspect, a: str | None, b: str | None, name: bytes = b"") -> Difference:
        return Difference(path, aspect, a, b, is_directory, name, directories=int(is_directory))

    if x.mode != y.mode:
        yield differ(Aspect.MODE, f"{x.mode:04o}", f"{y.mode:04o}")
    if (x.uid, x.gid) != (y.uid, y.gid):
        yield differ(Aspect.OWNER, f"{x.uid}:{x.gid}", f"{y.uid}:{y.gid}")
    if x.mtime_s != y.mtime_s:
        yield differ(Aspect.MTIME, _time(x), _time(y))
    elif x.mtime_ns != y.mtime_ns:
        yield differ(Aspect.MTIME_NS, _time(x), _time(y))
    if x.xattrs != y.xattrs:
        for name in sorted(x.xattrs.keys() | y.xattrs.keys()):
            one, other = x.xattrs.get(name), y.xattrs.get(name)
            if one != other:
                yield differ(Aspect.XATTR, _value(one), _value(other), name)


def _content(path: bytes, x: tree.Content, y: tree.Content) -> Difference:
    kinds = tree.kind_of(x), tree.kind_of(y)
    if kinds[0] is not kinds[1]:
        a, b = kinds[0].label, kinds[1].label
        return Difference(path, Aspect.TYPE, a, b, is_directory=False)
    aspect = Aspect.CONTENT
    if isinstance(x, tree.Symlink):
        aspect = Aspect.TARGET
    elif isinstance(x, tree.CharDevice | tree.BlockDevice):
        aspect = Aspect.DEVICE
    elif _same_bytes(x, y) or _same_bytes(y, x):
        aspect = Aspect.STORAGE
    elif _incomparable(x, y):
        aspect = Aspect.ALGORITHM
    return Difference(path, aspect, _described(x), _described(y), is_directory=False)


def _same_bytes(x: tree.Content, y: tree.Content) -> bool:
    """Whether ``x`` is known to be the content of the object ``y``."""
    if not isinstance(y, tree.External):
        return False
    match x:
        case tree.External():
            return (x.digest, x.size_bytes) == (y.digest, y.size_bytes)
        case tree.Inline():
            size_fits = x.size_bytes == y.size_bytes
            return size_fits and verity_digest(x.data, y.digest.algorithm) == y.digest
        case tree.Unverified():
            return (x.path, x.size_bytes) == (y.digest.object_path.encode(), y.size_bytes)
        case _:
            return False


def _incomparable(x: tree.Content, y: tree.Content) -> bool:
    return (
        isinstance(x, tree.External)
        and isinstance(y, tree.External)
        and x.size_bytes == y.size_bytes
        and x.digest.algorithm is not y.digest.algorithm
    )


def _links(path: bytes, first_x: bytes, first_y: bytes) -> Difference:
    def told(first: bytes) -> str:
        return "a file of its own" if first == path else f"the same file as {_text(first)}"

    names = (first_x, first_y)
    return Difference(
        path, Aspect.LINKS, told(first_x), told(first_y), is_directory=False, first_names=names
    )


def _kind(node: tree.Node) -> str:
    kind = (
        tree.FileKind.DIRECTORY if isinstance(node, tree.Directory) else tree.kind_of(node.content)
    )
    return kind.label


def _described(content: tree.Content) -> str:
    match content:
        case tree.Inline():
            return f"{content.size_bytes} inline bytes"
        case tree.External():
            return f"{content.size_bytes} bytes, object {content.digest.hex[:_SHOWN_DIGITS]}…"
        case tree.Unverified():
            return f"{content.size_bytes} bytes, file {_text(content.path)} with no digest"
        case tree.Sparse():
            return f"{content.size_bytes} bytes, all a hole"
        case tree.Symlink():
            return _text(content.target)
        case tree.CharDevice() | tree.BlockDevice():
            return str(content.rdev)
        case tree.Fifo() | tree.Socket():
            return tree.kind_of(content).label
        case _:
            assert_never(content)


def _time(meta: tree.Stat) -> str:
    fraction = f".{meta.mtime_ns:09}" if meta.mtime_ns else ""
    try:
        moment = _EPOCH + timedelta(seconds=meta.mtime_s)
    except OverflowError:
        return f"@{meta.mtime_s}{fraction}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _value(value: bytes | None) -> str | None:
    return None if value is None else _text(value)


def _text(raw: bytes) -> str:
    if len(raw) <= _SHOWN_BYTES:
        return printable(raw)
    return f"{printable(raw, _SHOWN_BYTES)} ({len(raw)} bytes)"
