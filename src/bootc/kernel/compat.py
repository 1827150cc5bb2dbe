"""What older kernels lack, one thing each, with the version that made it unnecessary."""

from __future__ import annotations

import os

from bootc.kernel.libc import AT_FDCWD
from bootc.kernel.mount import MNT_DETACH, UMOUNT_NOFOLLOW, move_mount, umount2

#: A place only root can write to, in the initramfs as on the running host.
_SCRATCH = "/run"


class attached:  # noqa: N801  (reads as a statement: ``with attached(mount_fd):``)
    """Give a detached mount a place in the file tree while the block runs.

    Before Linux 6.15 overlayfs refuses layers on detached mounts. It keeps private
    copies of its layers, so the place is given up again as soon as the overlay exists.
    """

    # A plain class: contextlib is not in the initramfs.
    def __init__(self, mount_fd: int) -> None:
        self._mount_fd = mount_fd
        self._path = f"{_SCRATCH}/bootc-layer-{os.urandom(8).hex()}"

    def __enter__(self) -> None:
        os.mkdir(self._path, 0o700)
        try:
            move_mount(self._mount_fd, "", AT_FDCWD, self._path)
        except OSError:
            os.rmdir(self._path)
            raise

    def __exit__(self, *exc: object) -> None:
        umount2(self._path, MNT_DETACH | UMOUNT_NOFOLLOW)
        os.rmdir(self._path)
