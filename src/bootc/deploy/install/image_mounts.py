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

#: File systems of the kernel that programs read. A program of an image sees those of this system.
_KERNEL_FILE_SYSTEMS = ("proc", "sys", "dev")
_TEMPORARY = "run", "tmp"
#: udev's knowledge of disks, which lsblk and findmnt ask for.
_UDEV = "run/udev"
_EFI_VARIABLES = "sys/firmware/efi/efivars"


def mount_directory(source: Dir, image: Dir, name: str) -> None:
    """Mount a directory on a directory of the image.

    Raises:
        OSError: the image has no such directory, or mounting failed.
    """
    source_fd = mount.open_tree(source.fileno(), "", mount.OPEN_TREE_CLONE | AT_EMPTY_PATH)
    _mount_over(source_fd, image, name)


def mount_temporary(image: Dir, name: str = "tmp") -> None:
    """Mount a temporary file system on a directory of the image.

    Raises:
        OSError: the image has no such directory, or mounting failed.
    """
    with doing("Mounting a temporary directory into the image"):
        _mount_over(_tmpfs(), image, name)


def mount_api_file_systems(image: Dir, *, firmware: bool) -> None:
    """Mount what programs expect of a running system; a missing directory remains missing.

    No mount below these file systems is mounted, except the variables of the firmware: when the
    image is unmounted, the mounts of this system must not be unmounted with it.

    Args:
        image: The root of the image.
        firmware: Whether programs may change the variables of the firmware.

    Raises:
        OSError: mounting failed.
    """
    with doing("Mounting the file systems of the kernel into the image"):
        for name in filter(image.exists, _KERNEL_FILE_SYSTEMS):
            _mount_of_this_system(image, name)
        if firmware and os.path.isdir(f"/{_EFI_VARIABLES}") and image.exists(_EFI_VARIABLES):
            _mount_of_this_system(image, _EFI_VARIABLES)
        for name in filter(image.exists, _TEMPORARY):
            mount_temporary(image, name)
        if os.path.isdir(f"/{_UDEV}") and image.exists("run"):
            image.ensure_dir(_UDEV).close()
            _mount_of_this_system(image, _UDEV)


def _mount_of_this_system(image: Dir, name: str) -> None:
    with Dir.open(f"/{name}") as source:
        mount_directory(source, image, name)


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
