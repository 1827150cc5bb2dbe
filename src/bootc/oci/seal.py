"""Trees of container images made into trees to boot: what an image id is computed of.

Owns: the two transforms between the flattened layers and the EROFS image.
Promises: they match composefs-rs to the byte of the image (deliberately including
that only the seconds of ``/boot`` and ``/sysroot`` are aligned), because builder
and machine must come to the same digest.

Labelling by an SELinux policy is part of the second transform and is not done yet:
an image that selects a policy is refused rather than given an id that no other
tool would compute.

Sources: composefs-rs 0.9, ``transform_for_oci`` (generic_tree.rs),
``transform_for_boot`` and ``selabel.rs`` (composefs-boot).
"""

from __future__ import annotations

from collections.abc import Callable

from bootc.errors import Error
from bootc.formats.tree import Directory, External, Inline

#: The only extended attribute that comes from the image; the rest is the builder's accident.
_KEPT_XATTRS = frozenset({b"security.capability"})
_SELINUX_CONFIG = "etc/selinux/config"
_EMPTIED_FOR_BOOT = ("boot", "sysroot")


class SealError(Error):
    """The tree lacks what every bootable image has."""


class LabelsUnsupported(Error):
    """The image selects an SELinux policy."""


def transform_for_oci(root: Directory) -> None:
    """Make the tree independent of how its layers were built, in place.

    The root gets the metadata of ``/usr``, ``/run`` is emptied, and of the extended attributes
    only file capabilities stay.

    Raises:
        SealError: there is no ``/usr`` directory.
    """
    usr = _directory(root, "usr")
    root.stat = usr.stat.copy()
    run = root.entries.get(b"run")
    if isinstance(run, Directory):
        run.entries.clear()
        run.stat.mtime_s = usr.stat.mtime_s
        run.stat.mtime_ns = usr.stat.mtime_ns
    for _, node in root.walk():
        xattrs = node.stat.xattrs
        if xattrs:
            node.stat.xattrs = {k: v for k, v in xattrs.items() if k in _KEPT_XATTRS}


def transform_for_boot(
    root: Directory, read_content: Callable[[Inline | External], bytes]
) -> Directory:
    """Return the tree that is booted, from one that went through :func:`transform_for_oci`.

    In it ``/boot`` and ``/sysroot`` are empty mount points. All else is shared with ``root``,
    which stays as it is.

    Args:
        root: The tree.
        read_content: Returns the content of a regular file of the tree.

    Raises:
        SealError: one of the two directories is missing.
        LabelsUnsupported: the image selects an SELinux policy.
    """
    usr = _directory(root, "usr")
    entries = dict(root.entries)
    for name in _EMPTIED_FOR_BOOT:
        stat = _directory(root, name).stat.copy()
        stat.mtime_s = usr.stat.mtime_s
        entries[name.encode()] = Directory(stat)
    # Without a policy labels are removed; the first transform has left none.
    if policy := _selinux_policy(root, read_content):
        raise LabelsUnsupported(
            f"the image selects the SELinux policy {policy!r}, and labelling is not supported yet",
            hint=f"remove SELINUXTYPE from /{_SELINUX_CONFIG} of the image",
        )
    return Directory(root.stat.copy(), entries)


def _selinux_policy(root: Directory, read_content: Callable[[Inline | External], bytes]) -> str:
    node = root.lookup(_SELINUX_CONFIG)
    if node is None:
        return ""
    if isinstance(node, Directory) or not isinstance(node.content, Inline | External):
        raise SealError(f"/{_SELINUX_CONFIG} is not a regular file")
    for line in read_content(node.content).splitlines():
        key, equals, value = line.partition(b"=")
        if equals and key.strip().lower() == b"selinuxtype":
            return value.strip().decode("utf-8", "backslashreplace")
    return ""


def _directory(root: Directory, name: str) -> Directory:
    node = root.entries.get(name.encode())
    if not isinstance(node, Directory):
        raise SealError(
            f"the image has no directory /{name}",
            hint="a bootable image needs /usr, /boot and /sysroot",
        )
    return node
