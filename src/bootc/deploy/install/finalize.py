"""The end of an installation: its file systems are written back and become read-only."""

from __future__ import annotations

import errno
import logging
from contextlib import suppress

from bootc.errors import Error, doing
from bootc.fs import process
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
