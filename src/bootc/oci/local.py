"""Directories as images: the tree that a pull would make of an extracted container.

A directory that holds the same files as the layers of an image, with the same times and
attributes, gives the same tree and therefore the same image id as :mod:`bootc.oci.trees`.
Extraction often changes something: for example, a directory that no layer lists gets the time of
the extraction.
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
    """The directory is the root of the running system, which changes all the time."""

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
    """Return the tree that an image would be made of.

    Args:
        directory: The root of the container; must stay open while content is read.
        bootable: Return the tree to boot, not the plain tree.
        algorithm: The algorithm of the digests of files, if ``objects`` is None.
        xattrs: Which extended attributes are kept.
        as_container: Change the tree as a pull does: the root gets the metadata of ``/usr``,
            ``/run`` is emptied, and extended attributes are filtered. Otherwise keep everything.
        objects: Receives the content of files; if None, the content is not stored.

    Raises:
        ActiveRoot: the directory is the root directory of this process.
        TreeChanged: another process writes to the directory.
        Error: the tree lacks something that an image needs, or its SELinux policy cannot be used.
        OSError: a file cannot be read.
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
        # A boot image has the labels of its own policy. Without a policy it has no labels.
        for _, node in root.walk():
            node.stat.xattrs.pop(_LABEL, None)
    return ImageTree(
        transform_for_boot(root, read_content) if bootable else root,
        root,
        read_content,
    )
