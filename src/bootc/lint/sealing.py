"""The lint of what a unified kernel image names: the images of the tree that it is in.

The lint computes the ids of the tree, as ``bootc container compute-composefs-digest`` does, for
every version of the image format and every mode of extended attributes. It reads the whole tree,
but only if a unified kernel image names an image. The root directory of the running process
changes all the time, so this lint does not look at it.

If a digest is not found, the lint says why where that can be known: a known change of the tree that
gives the digest, and files that are newer than the unified kernel image.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from bootc.boot.image_content import open_content
from bootc.boot.image_kernel import ImageNotBootable, UkiFile, find_boot_resource
from bootc.boot.unpacked_kernel import MODULES
from bootc.formats.cmdline import CmdlineError, ComposefsImages
from bootc.formats.digest import Algorithm, Digest
from bootc.formats.pe import PeError, Uki
from bootc.formats.shellquote import shell_quoted
from bootc.formats.tree import Directory, Stat
from bootc.fs.imageroot import ImageRoot
from bootc.fs.outline import Outline
from bootc.lint.model import LintFinding, Listing, lists
from bootc.oci.local import directory_tree
from bootc.oci.mismatch import explain_tree
from bootc.oci.names import FORMAT_VERSIONS, XattrMode
from bootc.oci.trees import ImageTree, image_id_of

#: More names are not listed.
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class _Named:
    """The images that a unified kernel image names, and the image itself."""

    uki: UkiFile
    images: ComposefsImages


def uki_digests(root: ImageRoot) -> LintFinding | None:
    """Find digests in a unified kernel image that are no image of the tree."""
    named = _named_images(root)
    if named is None:
        return None
    missing = set(named.images.hexes)
    trees = {}
    for xattrs in XattrMode:
        tree = trees[xattrs] = directory_tree(root.dir, xattrs=xattrs)
        for version in FORMAT_VERSIONS:
            missing.discard(image_id_of(tree.root, Algorithm.SHA512, version=version).hex)
            if not missing:
                return None
    wrong = [argument for argument in named.images.arguments if argument.hex in missing]
    tree = trees[XattrMode.ALLOWLIST_ONLY]
    # All digests of one unified kernel image are of the same tree.
    expected = Digest.from_hex(wrong[0].hex)
    why = explain_tree(tree, expected, uki_path=named.uki.path)
    newer = heapq.nlargest(_MOST, _newer(tree, named.uki.leaf.stat))
    return lists(
        Listing(
            "Found no image of this tree that the unified kernel image names",
            [argument.karg for argument in wrong],
        ),
        Listing("The reason", [why.text]),
        Listing(
            "Files that are newer than the unified kernel image",
            [shell_quoted(path) for _, path in newer],
        ),
    )


def _newer(tree: ImageTree, uki: Stat) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield time and path of each measured file that is newer than the unified kernel image."""
    made = uki.mtime_s, uki.mtime_ns
    for path, node in tree.root.walk():
        changed = node.stat.mtime_s, node.stat.mtime_ns
        # A directory is as new as its newest entry.
        if changed > made and not isinstance(node, Directory):
            yield changed, path.decode("utf-8", "surrogateescape")


def _named_images(root: ImageRoot) -> _Named | None:
    """Return the images that the unified kernel image names, if there is one and it names any.

    What is wrong with the command lines themselves is for ``pybootc-installable`` to say.
    """
    try:
        outline = Outline.read(root, ("boot", MODULES))
        resource = find_boot_resource(outline.root)
        if not isinstance(resource, UkiFile):
            return None
        with open_content(resource.leaf, outline) as file:
            return _Named(resource, Uki.read(file).composefs_images())
    except (ImageNotBootable, PeError, CmdlineError):
        return None
