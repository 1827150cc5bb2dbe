"""The lint of what a unified kernel image names: the images of the tree that it is in.

The lint computes the ids of the tree, as ``bootc container compute-composefs-digest`` does, for
every version of the image format and every mode of extended attributes. It reads the whole tree,
but only if a unified kernel image names an image. The root directory of the running process
changes all the time, so this lint does not look at it.
"""

from __future__ import annotations

from bootc.boot.image_content import open_content
from bootc.boot.image_kernel import ImageNotBootable, UkiFile, find_boot_resource
from bootc.boot.unpacked_kernel import MODULES
from bootc.formats.cmdline import CmdlineError, ComposefsImages
from bootc.formats.digest import Algorithm
from bootc.formats.pe import PeError, Uki
from bootc.fs.imageroot import ImageRoot
from bootc.fs.outline import Outline
from bootc.lint.model import LintFinding, Listing, lists
from bootc.oci.local import directory_tree
from bootc.oci.names import FORMAT_VERSIONS, XattrMode
from bootc.oci.trees import image_id_of


def uki_digests(root: ImageRoot) -> LintFinding | None:
    """Find digests in a unified kernel image that are no image of the tree."""
    named = _named_images(root)
    if named is None:
        return None
    missing = set(named.hexes)
    for xattrs in XattrMode:
        tree = directory_tree(root.dir, xattrs=xattrs).root
        for version in FORMAT_VERSIONS:
            missing.discard(image_id_of(tree, Algorithm.SHA512, version=version).hex)
            if not missing:
                return None
    wrong = [argument.karg for argument in named.arguments if argument.hex in missing]
    return lists(Listing("Found no image of this tree that the unified kernel image names", wrong))


def _named_images(root: ImageRoot) -> ComposefsImages | None:
    """Return the images that the unified kernel image names, if there is one and it names any.

    What is wrong with the command lines themselves is for ``pybootc-installable`` to say.
    """
    try:
        outline = Outline.read(root, ("boot", MODULES))
        resource = find_boot_resource(outline.root)
        if not isinstance(resource, UkiFile):
            return None
        with open_content(resource.leaf, outline) as file:
            return Uki.read(file).composefs_images()
    except (ImageNotBootable, PeError, CmdlineError):
        return None
