"""The two transforms between the tree of a container image and its EROFS images.

An image id is the digest of the transformed tree. The builder of an image and the machine must
compute the same id. Therefore the transforms match composefs-rs to the byte, including that they
align only the seconds of ``/boot`` and ``/sysroot``.

Sources: composefs-rs 0.9, ``transform_for_oci`` (generic_tree.rs), ``transform_for_boot``
(composefs-boot).
"""

from __future__ import annotations

from bootc.errors import Error
from bootc.formats.tree import Directory
from bootc.oci.names import XattrMode
from bootc.oci.selabel import ReadContent, find_policy, label_tree

_EMPTIED_FOR_BOOT = ("boot", "sysroot")


class SealError(Error):
    """The tree lacks a directory that every bootable image has."""


def transform_for_oci(root: Directory, xattrs: XattrMode = XattrMode.ALLOWLIST_ONLY) -> None:
    """Make the tree independent of how its layers were built, in place.

    The root gets the metadata of ``/usr``. ``/run`` is emptied. Extended attributes that
    ``xattrs`` does not keep are removed.

    Raises:
        SealError: the tree has no directory ``/usr``.
    """
    usr = _directory(root, "usr")
    root.stat = usr.stat.copy()
    run = root.entries.get(b"run")
    if isinstance(run, Directory):
        run.entries.clear()
        run.stat.mtime_s = usr.stat.mtime_s
        run.stat.mtime_ns = usr.stat.mtime_ns
    for _, node in root.walk():
        present = node.stat.xattrs
        if present:
            node.stat.xattrs = {k: v for k, v in present.items() if xattrs.keeps(k)}


def transform_for_boot(root: Directory, read_content: ReadContent) -> Directory:
    """Return the tree to boot, made from the result of :func:`transform_for_oci`.

    In this tree ``/boot`` and ``/sysroot`` are empty mount points, and every file has the label
    that the SELinux policy of the image gives it. The function does not change ``root``. Without
    a policy, the two trees share all other nodes.

    Args:
        root: The tree.
        read_content: Returns the content of a regular file of the tree.

    Raises:
        SealError: a directory is missing.
        LabelError, FileContextsError: the policy cannot be used.
    """
    usr = _directory(root, "usr")
    entries = dict(root.entries)
    for name in _EMPTIED_FOR_BOOT:
        stat = _directory(root, name).stat.copy()
        stat.mtime_s = usr.stat.mtime_s
        entries[name.encode()] = Directory(stat)
    booted = Directory(root.stat.copy(), entries)
    policy = find_policy(root, read_content)
    # Without a policy there are no labels: the first transform has removed them.
    return booted if policy is None else label_tree(booted, policy)


def _directory(root: Directory, name: str) -> Directory:
    node = root.entries.get(name.encode())
    if not isinstance(node, Directory):
        raise SealError(
            f"the image has no directory /{name}",
            hint="a bootable image needs /usr, /boot and /sysroot",
        )
    return node
