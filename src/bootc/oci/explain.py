"""Why two digests differ: two trees of any origin, compared and reconciled.

:func:`explain` opens what a user names (a directory, an EROFS image, a dumpfile or a container
image). It reads directories and container images in the way that deployment ids are computed,
and EROFS images and dumpfiles unchanged. It stores nothing. It has tried out every explanation
that it returns (see :mod:`bootc.oci.canonical`).
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from bootc.errors import Error, doing
from bootc.events import Sink, null_sink
from bootc.formats.dialect import Dialect
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.dumpfile import parse_dumpfile
from bootc.formats.erofs.image import unpack_headers
from bootc.formats.erofs.reader import read_erofs
from bootc.formats.erofs.structs import EROFS_MAGIC, MAX_IMAGE_BYTES, SUPERBLOCK_OFFSET
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.imgref import ImageReference
from bootc.formats.libcomposefs import erofs as libcomposefs
from bootc.formats.libcomposefs.tree import CTree
from bootc.formats.tree import Directory, External, Inline, Leaf
from bootc.formats.treediff import DifferenceGroup, compare, summarise
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.oci.canonical import Applied, explain_by, format_version, known_canonicalisations
from bootc.oci.local import directory_tree
from bootc.oci.names import XattrMode
from bootc.oci.selabel import ReadContent
from bootc.oci.source import open_source
from bootc.oci.trees import image_tree

#: The defaults of deployment ids.
_ALGORITHM = Algorithm.SHA512
_FORMAT_VERSION = 1
_EROFS_MAGIC = EROFS_MAGIC.to_bytes(4, "little")


class NotATree(Error):
    """The given name leads to nothing that holds a tree."""


class ContentMissing(Error):
    """The content of a file is needed, but only its digest is known."""


class SideKind(enum.Enum):
    """The kinds of things that a user can name."""

    DIRECTORY = "directory"
    IMAGE = "EROFS image"
    DUMPFILE = "dumpfile"
    CONTAINER = "container image"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two sides of a comparison."""

    name: str
    kind: SideKind
    entries: int
    digest: Digest
    #: The format version of the image, or of the image that the tree would become. None for an
    #: EROFS image that is not a composefs image.
    format_version: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Why the digests differ."""

    a: Side
    b: Side
    findings: tuple[DifferenceGroup, ...]
    #: The changes that make the trees equal; None if no known changes do.
    explanation: tuple[Applied, ...] | None
    #: The dialects of the two writers, if the images differ in nothing else; None if unknown.
    writers: tuple[Dialect | None, Dialect | None] | None = None

    @property
    def equal(self) -> bool:
        """Whether the digests are equal."""
        return self.a.digest == self.b.digest


def explain(
    a: str,
    b: str,
    *,
    bootable: bool = True,
    xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY,
    sink: Sink = null_sink,
) -> Comparison:
    """Compare two things that should have the same digest.

    Args:
        a: A directory, an EROFS image, a dumpfile, or an image reference.
        b: Another one.
        bootable: Read directories and container images as bootable images.
        xattrs: Which extended attributes of these are kept.
        sink: Receives the progress of the layers.

    Raises:
        NotATree: a side is none of these kinds.
        Error: a side is damaged, or lacks something that a bootable image needs.
        OSError: a side cannot be read.
    """
    stored = [_read_file(a), _read_file(b)]
    with contextlib.ExitStack() as stack:
        # The algorithm of a stored tree decides how the other side is hashed.
        named_by = [None if tree is None else _algorithm_of(tree.root) for tree in stored]
        usual = named_by[0] or named_by[1] or _ALGORITHM
        trees = [
            tree
            or stack.enter_context(
                _read_source(name, usual, bootable=bootable, xattrs=xattrs, sink=sink)
            )
            for name, tree in zip((a, b), stored, strict=True)
        ]
        sides = [
            _side(name, tree, algorithm or usual)
            for name, tree, algorithm in zip((a, b), trees, named_by, strict=True)
        ]
        return _report((sides[0], sides[1]), (trees[0], trees[1]), usual)


@dataclass(frozen=True, slots=True)
class _Tree:
    """A tree and its origin."""

    kind: SideKind
    root: Directory
    #: The bytes of the EROFS image, if the tree comes from one.
    image: bytes | None = None
    read_content: ReadContent | None = None


def _report(
    sides: tuple[Side, Side], trees: tuple[_Tree, _Tree], algorithm: Algorithm
) -> Comparison:
    if sides[0].digest == sides[1].digest:
        return Comparison(*sides, findings=(), explanation=())
    pair = trees[0].root, trees[1].root
    differences = list(compare(*pair))
    versions = sides[0].format_version, sides[1].format_version
    always = (format_version(versions),) if versions[0] != versions[1] else ()
    if not differences and not always:
        writers = _writer(sides[0], trees[0]), _writer(sides[1], trees[1])
        return Comparison(*sides, findings=(), explanation=(), writers=writers)
    candidates = known_canonicalisations(algorithm, _reader_of(trees))
    return Comparison(
        *sides,
        findings=summarise(differences),
        explanation=explain_by(pair, differences, candidates, always),
    )


def _side(name: str, tree: _Tree, algorithm: Algorithm) -> Side:
    image = tree.image
    version: int | None = _FORMAT_VERSION
    if image is None:
        with doing(f"Making the image of {name}"):
            image = mkfs_erofs(tree.root, version=_FORMAT_VERSION)
    else:
        version = unpack_headers(image).version
    entries = sum(1 for _ in tree.root.walk())
    return Side(name, tree.kind, entries, verity_digest(image, algorithm), version)


def _writer(side: Side, tree: _Tree) -> Dialect | None:
    """Return the dialect that writes this image, or None."""
    if side.format_version is None:
        return None
    image = mkfs_erofs(tree.root, version=side.format_version)
    if verity_digest(image, side.digest.algorithm) == side.digest:
        return Dialect.RUST
    if side.format_version in libcomposefs.VERSIONS:
        image = libcomposefs.mkfs_erofs(CTree(tree.root), version=side.format_version)
        if verity_digest(image, side.digest.algorithm) == side.digest:
            return Dialect.C
    return None


def _reader_of(trees: tuple[_Tree, _Tree]) -> ReadContent:
    """Return a function that reads a file of either tree: equal digests mean equal content."""

    def read_content(content: Inline | External) -> bytes:
        if isinstance(content, Inline):
            return content.data
        for tree in trees:
            if tree.read_content is not None and _holds(tree.root, content):
                return tree.read_content(content)
        raise ContentMissing("neither tree comes with the content of its files")

    return read_content


def _holds(root: Directory, content: External) -> bool:
    return any(isinstance(node, Leaf) and node.content == content for _, node in root.walk())


def _algorithm_of(root: Directory) -> Algorithm | None:
    """Return the algorithm of the object names, or None if the tree refers to no objects."""
    for _, node in root.walk():
        if isinstance(node, Leaf) and isinstance(node.content, External):
            return node.content.digest.algorithm
    return None


def _read_file(name: str) -> _Tree | None:
    """Read an image or a dumpfile; None for a directory or an image reference."""
    if _is_reference(name):
        return None
    try:
        if stat.S_ISDIR(os.stat(name).st_mode):
            return None
    except FileNotFoundError as exc:
        raise NotATree(
            f"there is no {name}",
            hint="name a directory, an EROFS image, a dumpfile, or a container image by its "
            "transport (oci:DIR:TAG, docker://HOST/REPOSITORY:TAG)",
        ) from exc
    with doing(f"Reading {name}"), open(name, "rb") as file:
        # Read everything once: the file may be a pipe from a program that writes a dumpfile.
        data = file.read(MAX_IMAGE_BYTES + 1)
        if data[SUPERBLOCK_OFFSET : SUPERBLOCK_OFFSET + 4] == _EROFS_MAGIC:
            return _Tree(SideKind.IMAGE, read_erofs(data), data)
        if data.startswith(b"/ "):
            return _Tree(SideKind.DUMPFILE, parse_dumpfile(data.removesuffix(b"\n").split(b"\n")))
    raise NotATree(
        f"{name} is neither an EROFS image nor a dumpfile",
        hint="an image has the EROFS magic at byte 1024, a dumpfile begins with the line of /",
    )


@contextlib.contextmanager
def _read_source(
    name: str, algorithm: Algorithm, *, bootable: bool, xattrs: XattrMode, sink: Sink
) -> Iterator[_Tree]:
    """Read a directory or a container image in the way that ids are computed."""
    if _is_reference(name):
        with open_source(ImageReference.parse(name)) as source:
            tree = image_tree(source, sink, bootable=bootable, algorithm=algorithm, xattrs=xattrs)
            yield _Tree(SideKind.CONTAINER, tree.root, read_content=tree.read_content)
        return
    with Dir.open(name) as directory:
        tree = directory_tree(directory, bootable=bootable, algorithm=algorithm, xattrs=xattrs)
        yield _Tree(SideKind.DIRECTORY, tree.root, read_content=tree.read_content)


def _is_reference(name: str) -> bool:
    # For a file with a colon in its name, the user puts the directory in front: ./a:b
    return ":" in name and not name.startswith((".", "/"))
