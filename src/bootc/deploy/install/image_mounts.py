"""Mounts inside the mounted image, for programs of loaders that run on it.

Everything is mounted on directory descriptors, so a link in the image cannot redirect it. The
mounts disappear when the image is unmounted.
"""

from __future__ import annotations

import os

from bootc.errors import doing
from bootc.fs.dir import Dir
from bootc.kernel import mount
from bootc.kernel.libc import AT_EMPTY_PATH


def mount_directory(source: Dir, image: Dir, name: str) -> None:
    """Mount a directory on a directory of the image.

    Raises:
        OSError: the image has no such directory, or mounting failed.
    """
    source_fd = mount.open_tree(source.fileno(), "", mount.OPEN_TREE_CLONE | AT_EMPTY_PATH)
    _mount_over(source_fd, image, name)


def mount_temporary(image: Dir) -> None:
    """Mount a temporary file system on ``/tmp`` of the image.

    Raises:
        OSError: the image has no such directory, or mounting failed.
    """
    with doing("Mounting a temporary directory into the image"):
        _mount_over(_tmpfs(), image, "tmp")


def _mount_over(mount_fd: int, image: Dir, name: str) -> None:
    try:
        with image.open_dir(name) as target:
            mount.move_mount(mount_fd, "", target.fileno(), "")
    finally:
        os.close(mount_fd)


def _tmpfs() -> int:
    fs_fd = mount.fsopen("tmpfs")
    try:
        mount.fsconfig_create(fs_fd)
        attrs = mount.MOUNT_ATTR_NOEXEC | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
        return mount.fsmount(fs_fd, attrs=attrs)
    finally:
        os.close(fs_fd)
