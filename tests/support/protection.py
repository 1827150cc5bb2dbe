"""Files that chattr(1) protects."""

from __future__ import annotations

import os
from pathlib import Path

from bootc.fs.protection import clear_protection, protect, protection_of
from bootc.kernel.files import FS_APPEND_FL, FS_IMMUTABLE_FL
from support import require

IMMUTABLE, APPEND = FS_IMMUTABLE_FL, FS_APPEND_FL


def set_flags(path: Path, flags: int) -> None:
    """Do what ``chattr`` does, or skip where the file system cannot; only root may."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        protect(fd, flags)
    except OSError as exc:
        require.lacking(f"{path} cannot be made immutable: {exc}")
    finally:
        os.close(fd)


def flags_of(path: Path) -> int:
    """Return which of the two flags a file or directory has."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return protection_of(fd)
    finally:
        os.close(fd)


def unprotect(top: Path) -> None:
    """Clear the flags of a whole tree, so that what made it can remove it."""
    for above, _, names in os.walk(top):
        for path in (Path(above), *(Path(above, name) for name in names)):
            if (path.is_file() and not path.is_symlink()) or path.is_dir():
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                clear_protection(fd)
                os.close(fd)
