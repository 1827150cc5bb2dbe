"""Why the digest in a unified kernel image (UKI) is not the one of its container.

The machine has the tree of the container and a number. The tree that the builder measured is
elsewhere. :func:`explain_mismatch` looks for it in three places, the surest first:

1. The image has the dumpfile of the measured tree beside its UKI: ``boot/<name of the UKI>.dump``.
2. The measured tree is that of the image without its last layers: they changed it afterwards.
3. It is the tree of the image after one or two known changes (:mod:`bootc.oci.canonical`).

Promises: a tree counts as measured only if its EROFS image has the digest. The function stores
nothing, and makes a bounded number of images.
"""

from __future__ import annotations

import itertools
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from bootc.errors import Error
from bootc.formats.digest import Digest, OciDigest
from bootc.formats.dumpfile import parse_dumpfile
from bootc.formats.erofs.writer import mkfs_erofs
from bootc.formats.tree import Directory, External, Inline, Leaf
from bootc.formats.treediff import DifferenceGroup, compare, summarise
from bootc.formats.verity import verity_digest
from bootc.oci.canonical import (
    Applied,
    Canonicalisation,
    explain_by,
    known_canonicalisations,
)
from bootc.oci.names import FORMAT_VERSIONS
from bootc.oci.trees import ImageTree, boot_tree, stored_tree
from bootc.printable import printable
from bootc.repository.content import read_content
from bootc.repository.repository import Repository

#: The dumpfile of a large system has some 20 MB.
_MAX_DUMP_BYTES = 64 << 20
#: Layers that a build may add after it measured the tree.
_MAX_LATER_LAYERS = 4
#: Trees that are made by known changes, and changes in one of them.
_MAX_TRIALS = 16
_MAX_COMBINED = 2
#: Classes and examples of each class in the text.
_SHOWN_CLASSES = 4


@dataclass(frozen=True, slots=True)
class Mismatch:
    """An explanation.

    Attributes:
        measured: What the builder measured, as a phrase; empty if that is not known.
        differences: The differences between the image and the measured tree, by class.
        changes: The known changes that make both equal; empty if none is known.
    """

    measured: str = ""
    differences: tuple[DifferenceGroup, ...] = ()
    changes: tuple[Canonicalisation, ...] = ()

    @property
    def text(self) -> str:
        """Return the explanation and the remedy in one line."""
        if not self.measured:
            return (
                "no known change of the tree explains the digest: build the image again, or "
                "compare it with the measured tree: "
                "bootc container compute-composefs-digest --explain"
            )
        parts = [f"the digest is that of {self.measured}"]
        parts += [_class_text(group) for group in self.differences[:_SHOWN_CLASSES]]
        if len(self.differences) > _SHOWN_CLASSES:
            parts.append("and more")
        parts += [f"equal when {change.condition}: {change.advice}" for change in self.changes]
        if not self.changes:
            parts.append("build the UKI last, when nothing changes the files any more")
        return "; ".join(parts)


def explain_mismatch(
    repository: Repository,
    plain: Directory,
    expected: Digest,
    *,
    uki_path: str,
    diff_ids: Sequence[OciDigest] = (),
) -> Mismatch:
    """Explain why no image of a container has the digest that its UKI names.

    Args:
        repository: The repository that has the content of the tree.
        plain: The tree of the container with the content of ``/boot``.
        expected: The digest that the UKI names.
        uki_path: The path of the UKI in the image.
        diff_ids: The layers of the container, if the repository has them.

    Raises:
        OSError: the repository cannot be read.
    """
    try:
        read = partial(read_content, repository.objects)
        tree = ImageTree(boot_tree(repository, plain), plain, read)
        return (
            _by_dump(tree, expected, uki_path)
            or _by_layers(repository, tree, expected, diff_ids)
            or _by_changes(tree, expected)
            or Mismatch()
        )
    except Error:
        # A damaged or unusual tree must not hide the error that is to be explained.
        return Mismatch()


def explain_tree(tree: ImageTree, expected: Digest, *, uki_path: str) -> Mismatch:
    """Explain why no image of an unpacked container has the digest that its UKI names.

    Args:
        tree: The tree of the container. Its files must be hashed as the digest is.
        expected: The digest that the UKI names.
        uki_path: The path of the UKI in the image.

    Raises:
        OSError: the tree cannot be read.
    """
    try:
        return _by_dump(tree, expected, uki_path) or _by_changes(tree, expected) or Mismatch()
    except Error:
        return Mismatch()


def _by_dump(tree: ImageTree, expected: Digest, uki_path: str) -> Mismatch | None:
    stem = posixpath.basename(uki_path).rpartition(".")[0]
    path = f"boot/{stem}.dump"
    node = tree.whole.lookup(path)
    if not isinstance(node, Leaf) or not isinstance(node.content, Inline | External):
        return None
    if node.content.size_bytes > _MAX_DUMP_BYTES:
        return None
    try:
        data = tree.read_content(node.content)
        measured = parse_dumpfile(data.removesuffix(b"\n").split(b"\n"))
    except (Error, OSError):
        return None  # Any file can have this name.
    if not _has_digest(measured, expected):
        return None
    return _compared(tree, expected, measured, f"the tree in {printable(path)}")


def _by_layers(
    repository: Repository, tree: ImageTree, expected: Digest, diff_ids: Sequence[OciDigest]
) -> Mismatch | None:
    upper = tree.root
    for later in range(1, min(_MAX_LATER_LAYERS, len(diff_ids) - 1) + 1):
        try:
            measured = boot_tree(repository, stored_tree(repository, diff_ids[:-later]))
        except (Error, FileNotFoundError):
            continue  # The lower layers alone are no bootable tree.
        if next(compare(upper, measured), None) is None:
            continue  # The layer has only the UKI. Comparing is cheaper than making images.
        upper = measured
        if _has_digest(measured, expected):
            layers = "its last layer" if later == 1 else f"its last {later} layers"
            return _compared(tree, expected, measured, f"the image without {layers}")
    return None


def _by_changes(tree: ImageTree, expected: Digest) -> Mismatch | None:
    known = known_canonicalisations(expected.algorithm, tree.read_content)
    useful = [change for change in known if _changes(tree.root, change)]
    trials = itertools.islice(_combinations(useful), _MAX_TRIALS)
    for combination in trials:
        changed = tree.root.copy()
        for change in combination:
            changed = change.apply(changed)
        if _has_digest(changed, expected):
            return Mismatch("its tree after a known change", (), combination)
    return None


def _combinations(
    changes: Sequence[Canonicalisation],
) -> Iterator[tuple[Canonicalisation, ...]]:
    for size in range(1, _MAX_COMBINED + 1):
        for combination in itertools.combinations(changes, size):
            # Wide changes first, as in explain_by.
            yield combination[::-1]


def _changes(tree: Directory, change: Canonicalisation) -> bool:
    try:
        changed = change.apply(tree.copy())
    except Error:
        return False
    return next(compare(tree, changed), None) is not None


def _has_digest(tree: Directory, expected: Digest) -> bool:
    return any(
        verity_digest(mkfs_erofs(tree, version=version), expected.algorithm) == expected
        for version in FORMAT_VERSIONS
    )


def _compared(tree: ImageTree, expected: Digest, measured: Directory, what: str) -> Mismatch:
    differences = list(compare(tree.root, measured))
    known = known_canonicalisations(expected.algorithm, tree.read_content)
    explanation: Sequence[Applied] = explain_by((tree.root, measured), differences, known) or ()
    changes = tuple(applied.canonicalisation for applied in explanation)
    return Mismatch(what, summarise(differences), changes)


def _class_text(group: DifferenceGroup) -> str:
    example = printable(group.examples[0].path)
    others = f" and {group.entries - 1} more" if group.entries > 1 else ""
    return f"{group.title}: {example}{others}"
