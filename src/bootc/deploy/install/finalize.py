"""The end of an installation: its file systems are written back and become read-only.

``install to-filesystem --skip-finalize`` leaves that to a later ``install finalize``.
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress

from bootc.deploy.install import aleph, interrupted
from bootc.deploy.install.clearing import UNFINISHED
from bootc.deploy.install.request import InstallRefused
from bootc.errors import Error, doing
from bootc.fs import mounts, process
from bootc.fs.dir import Dir
from bootc.fs.interruption import undisturbed
from bootc.kernel import files, mount

_log = logging.getLogger(__name__)


def finalize_filesystem(directory: Dir) -> None:
    """Trim a file system, write it back, and make it read-only.

    Args:
        directory: The root of a mount.

    Raises:
        OSError: it could not be written back or made read-only.
    """
    with doing(f"Finalizing {directory.path}"):
        directory.sync()
        # Trimming helps some disks; nothing depends on it.
        with suppress(Error):
            process.run(["fstrim", "--quiet-unsupported", directory.path])
        try:
            mount.mount(None, directory.path, None, mount.MS_REMOUNT | mount.MS_RDONLY)
        except OSError as exc:
            if exc.errno != errno.EBUSY:
                raise
            # Everything is on the disk, but perhaps only in the journal, which boot loaders do
            # not read. Freezing empties the journal.
            _log.warning("%s is in use and remains writable", directory.path)
            # FAT, for example, cannot be frozen, and has no journal.
            with suppress(OSError), undisturbed():
                files.freeze_and_thaw(directory.fileno())


def finalize_installation(path: str) -> list[str]:
    """Finalize the file systems of an installation, which are mounted at a path and below it.

    Returns:
        Their mount points.

    Raises:
        InstallRefused: nothing is mounted there, or the installation is not complete.
        OSError: a file system could not be written back or made read-only.
    """
    if os.geteuid() != 0:
        raise InstallRefused("This command must be executed as the root user")
    if not os.path.isdir(path):
        raise InstallRefused(f"Not a directory: {path}")
    real = os.path.realpath(path)
    below = [entry.path for entry in mounts.read_mounts() if entry.path.startswith(f"{real}/")]
    if not any(entry.path == real for entry in mounts.read_mounts()):
        raise InstallRefused(f"Not a mountpoint: {real}")
    with Dir.open(real) as root:
        # A kill may have come between the boot entry and the removal of the mark.
        killed = root.exists(UNFINISHED) and not interrupted.root_boots(real)
        if killed or not root.exists(aleph.NAME):
            raise InstallRefused(
                f"{real} has no complete installation", hint="run bootc install to-filesystem first"
            )
        if root.exists(UNFINISHED):
            root.unlink(UNFINISHED)
    mounts.private_mount_namespace()
    # The root comes last: what is below it may have to be found through it.
    order = [*sorted(set(below), reverse=True), real]
    for name in order:
        with Dir.open(name) as directory:
            finalize_filesystem(directory)
    return order
