"""Directories as images: the tree a pull would make of an extracted container.

Owns: nothing but the order of steps. Promises: a directory that holds what the layers
of an image hold, times and attributes included, gives the tree and so the image id
that :mod:`bootc.oci.trees` computes from the layers. (Extraction often does not: a
directory no layer lists gets the time of extraction, for one.)
"""

from __future__ import annotations

import os

from bootc.errors import Error
from bootc.formats.digest import Algorithm
from bootc.formats.tree import External, Inline, Leaf
from bootc.formats.verity import verity_digest
from bootc.fs.dir import Dir
from bootc.fs.tree_read import TreeChanged, read_tree
from bootc.oci.names import XattrMode
from bootc.oci.seal import transform_for_boot, transform_for_oci
from bootc.oci.trees import ImageTree
from bootc.repository.sink import DigestOnly, ObjectSink

_LABEL = b"security.selinux"


class ActiveRoot(Error):
    """The directory is the root of the running system, which never holds still."""

    def __init__(self) -> None:
        super().__init__("Cannot operate on active root filesystem; mount separate target instead")


def directory_tree(
    directory: Dir,
    *,
    bootable: bool = True,
    algorithm: Algorithm = Algorithm.SHA512,
    xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY,
    as_container: bool = True,
    objects: ObjectSink | None = None,
) -> ImageTree:
    """Return the tree an image would be made of.

    Args:
        directory: The root of the container; must stay open while content is read.
        bootable: The tree to boot, not the plain one.
        algorithm: What files are named by, unless ``objects`` says it.
        xattrs: Which extended attributes are kept.
        as_container: Do what a pull does to any tree: the root gets the metadata of ``/usr``,
            ``/run`` is emptied, and attributes are left out. Otherwise all is kept.
        objects: Where the content of files goes, if it shall be kept.

    Raises:
        ActiveRoot: it is the root directory of this process.
        TreeChanged: something is written to the directory meanwhile.
        Error: it lacks what an image needs, or its SELinux policy cannot be used.
        OSError: something cannot be read.
    """
    if os.path.samestat(os.fstat(directory.fileno()), os.stat("/")):
        raise ActiveRoot
    root = read_tree(directory, DigestOnly(algorithm) if objects is None else objects)
    paths: dict[External, bytes] = {}

    def read_content(content: Inline | External) -> bytes:
        if isinstance(content, Inline):
            return content.data
        if not paths:
            for path, node in root.walk():
                if isinstance(node, Leaf) and isinstance(node.content, External):
                    paths.setdefault(node.content, path)
        name = os.fsdecode(paths[content].lstrip(b"/"))
        data = directory.read_bytes(name, content.size_bytes)
        if verity_digest(data, content.digest.algorithm) != content.digest:
            raise TreeChanged(f"{directory.path.rstrip('/')}/{name}")
        return data

    if as_container:
        transform_for_oci(root, xattrs)
    elif bootable:
        # The labels of the image to boot are those of its own policy, or none.
        for _, node in root.walk():
            node.stat.xattrs.pop(_LABEL, None)
    return ImageTree(
        transform_for_boot(root, read_content) if bootable else root,
        root,
        read_content,
    )
