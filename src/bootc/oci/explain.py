"""Why two digests differ: two trees from wherever they are, compared and reconciled.

Owns: opening what a user names (a directory, an EROFS image, a dumpfile, a container
image) and the report. Promises: directories and container images are read the way
deployment ids are computed, images and dumpfiles as they are; nothing is stored; an
explanation was tried out (see :mod:`bootc.oci.canonical`).
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
from bootc.formats.treediff import Finding, compare, summarise
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.oci.canonical import Applied, explain_by, format_version, known_canonicalisations
from bootc.oci.local import directory_tree
from bootc.oci.pull import image_tree
from bootc.oci.seal import XattrMode
from bootc.oci.selabel import ReadContent
from bootc.oci.source import open_source

#: What deployment ids are, where nothing says otherwise.
_ALGORITHM = Algorithm.SHA512
_FORMAT_VERSION = 1
_EROFS_MAGIC = EROFS_MAGIC.to_bytes(4, "little")


class NotATree(Error):
    """What was named holds no tree that could be compared."""


class ContentMissing(Error):
    """A file's content is needed, and only its digest is at hand."""


class Kind(enum.Enum):
    """What a user can name."""

    DIRECTORY = "directory"
    IMAGE = "EROFS image"
    DUMPFILE = "dumpfile"
    CONTAINER = "container image"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two."""

    name: str
    kind: Kind
    entries: int
    digest: Digest
    #: Of the image, or of the image the tree would become; None of an EROFS image that is no
    #: composefs image.
    format_version: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """Why the digests differ."""

    a: Side
    b: Side
    findings: tuple[Finding, ...]
    #: What makes the trees equal; None if nothing known does.
    explanation: tuple[Applied, ...] | None
    #: Whose rules the images were written by, when that is all that differs; None for nobody's.
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
) -> Report:
    """Compare two things that were to have the same digest.

    Args:
        a: A directory, an EROFS image, a dumpfile, or an image reference.
        b: Another.
        bootable: Read directories and container images as bootable ones.
        xattrs: Which extended attributes of them are kept.
        sink: Told of the layers that are read.

    Raises:
        NotATree: one of them is nothing of that kind.
        Error: one is damaged, or lacks what a bootable image has.
        OSError: one cannot be read.
    """
    stored = [_read_file(a), _read_file(b)]
    with contextlib.ExitStack() as stack:
        # What stored trees name their objects by decides how the others are hashed.
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
    """A tree and where it is from."""

    kind: Kind
    root: Directory
    #: The image as it is stored, if it is one.
    image: bytes | None = None
    read_content: ReadContent | None = None


def _report(sides: tuple[Side, Side], trees: tuple[_Tree, _Tree], algorithm: Algorithm) -> Report:
    if sides[0].digest == sides[1].digest:
        return Report(*sides, findings=(), explanation=())
    pair = trees[0].root, trees[1].root
    differences = list(compare(*pair))
    versions = sides[0].format_version, sides[1].format_version
    always = (format_version(versions),) if versions[0] != versions[1] else ()
    if not differences and not always:
        writers = _writer(sides[0], trees[0]), _writer(sides[1], trees[1])
        return Report(*sides, findings=(), explanation=(), writers=writers)
    candidates = known_canonicalisations(algorithm, _reader_of(trees))
    return Report(
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
    """Return whose rules made an image."""
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
    """Return what reads a file of either tree: equal digests mean equal content."""

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
    """Return what objects are named by; None if the tree refers to none."""
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
        # One read for all: it may be a pipe from a program that writes a dumpfile.
        data = file.read(MAX_IMAGE_BYTES + 1)
        if data[SUPERBLOCK_OFFSET : SUPERBLOCK_OFFSET + 4] == _EROFS_MAGIC:
            return _Tree(Kind.IMAGE, read_erofs(data), data)
        if data.startswith(b"/ "):
            return _Tree(Kind.DUMPFILE, parse_dumpfile(data.removesuffix(b"\n").split(b"\n")))
    raise NotATree(
        f"{name} is neither an EROFS image nor a dumpfile",
        hint="an image has the EROFS magic at byte 1024, a dumpfile begins with the line of /",
    )


@contextlib.contextmanager
def _read_source(
    name: str, algorithm: Algorithm, *, bootable: bool, xattrs: XattrMode, sink: Sink
) -> Iterator[_Tree]:
    """Read a directory or a container image the way ids are computed of them."""
    if _is_reference(name):
        with open_source(ImageReference.parse(name)) as source:
            tree = image_tree(source, sink, bootable=bootable, algorithm=algorithm, xattrs=xattrs)
            yield _Tree(Kind.CONTAINER, tree.root, read_content=tree.read_content)
        return
    with Dir.open(name) as directory:
        tree = directory_tree(directory, bootable=bootable, algorithm=algorithm, xattrs=xattrs)
        yield _Tree(Kind.DIRECTORY, tree.root, read_content=tree.read_content)


def _is_reference(name: str) -> bool:
    # A file of such a name can be said with its directory in front: ./a:b
    return ":" in name and not name.startswith((".", "/"))
