"""Writing a large file to a boot partition in one step.

FAT has no journal. A file under its final name is whole: it is written under a
temporary one, flushed, and renamed. And a file that power cuts short has a name: where
a file begins is on the disk before most of it is, since clusters that no name leads to
are made files of their own by the next check of the file system (``FSCK0000.REC``),
which nobody would ever remove.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

from bootc.fs import atomic
from bootc.fs.dir import Dir


def write_stream(directory: Dir, name: str, chunks: Iterable[bytes]) -> None:
    """Make ``name`` hold the chunks; it is on the disk afterwards.

    When the chunks end in an exception nothing is left of them. What a power cut leaves
    has a name of its own that the next call for the same file takes over, so that repeated
    failures do not fill the partition.
    """
    temporary = f"{atomic.FILE_PREFIX}{name}"
    with contextlib.suppress(FileNotFoundError):
        directory.unlink(temporary)
    fd = directory.open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with open(fd, "wb") as target:
            for number, chunk in enumerate(chunks):
                if number == 1:
                    target.flush()
                    os.fsync(target.fileno())
                    os.fsync(directory.fileno())
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
            directory.rename(temporary, name)
            # FAT writes with a directory only the new name; what it names, with the file.
            os.fsync(target.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            directory.unlink(temporary)
        raise
    os.fsync(directory.fileno())
