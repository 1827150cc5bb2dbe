"""Importing existing files as objects in the cheapest possible way.

Owns: the order of attempts (composefs, "Writing objects" 3): share the file's blocks
(reflink), share its inode (hard link), copy it. Promises: in each case the object is sealed
and named like any other, and the source is unchanged, with one exception. A hard link needs
fs-verity *on the source*, which makes that file immutable permanently. This happens only if
the caller allows it. Without fs-verity there are no hard links: a program that writes to the
source would write to the object.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from dataclasses import dataclass

from bootc.errors import Error, doing
from bootc.formats.digest import Digest
from bootc.fs.atomic import Tmpfile
from bootc.kernel import files
from bootc.repository.objects import Objects

#: What reflinks and hard links answer where there are none: other file system, other mount,
#: no such operation, too many links or none, a file somebody writes to or may not touch.
_IMPOSSIBLE = frozenset(
    {
        errno.EOPNOTSUPP,
        errno.ENOTTY,
        errno.ENOSYS,
        errno.EXDEV,
        errno.EINVAL,
        errno.EPERM,
        errno.EACCES,
        errno.EROFS,
        errno.EMLINK,
        errno.ENOENT,
        errno.ETXTBSY,
    }
)
_COPY_BYTES = 1 << 30


class Method(enum.Enum):
    """The way in which a file became an object."""

    REFLINKED = "reflinked"
    HARDLINKED = "hardlinked"
    COPIED = "copied"
    ALREADY_PRESENT = "already present"


class NotShareable(Error):
    """The file cannot be shared, and the caller forbids copying."""


@dataclass(frozen=True, slots=True)
class Imported:
    """An object, and the way in which it was imported."""

    digest: Digest
    size_bytes: int
    method: Method


class Importer:
    """Imports files into a repository and remembers which ways do not work.

    Args:
        objects: The objects of the repository.
        seal_sources: Allow hard links, and with them fs-verity on the source.
        zerocopy: Fail where the only way is to copy.
    """

    def __init__(
        self, objects: Objects, *, seal_sources: bool = False, zerocopy: bool = False
    ) -> None:
        self._objects = objects
        self._seal_sources = seal_sources
        self._zerocopy = zerocopy
        #: Devices whose files share no blocks with those of the repository.
        self._unrelated: set[int] = set()

    def add(self, fd: int) -> Imported:
        """Import a regular file that is open for reading; the descriptor stays the caller's.

        Raises:
            NotShareable: it can only be copied, and ``zerocopy`` was demanded.
            VerityMissing: the repository is secure and the file system cannot do fs-verity.
            OSError: EINVAL when it is no regular file; whatever reading and writing raise.
        """
        info = os.fstat(fd)
        with doing(f"Importing {os.readlink(f'/proc/self/fd/{fd}')}"):
            if not stat.S_ISREG(info.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            return self._reflinked(fd, info.st_dev) or self._hardlinked(fd) or self._copied(fd)

    def _reflinked(self, fd: int, device: int) -> Imported | None:
        if device in self._unrelated:
            return None
        with self._objects.new_file() as tmpfile:
            try:
                files.ficlone(tmpfile.fileno(), fd)
            except OSError as exc:
                if exc.errno not in _IMPOSSIBLE:
                    raise
                self._unrelated.add(device)
                return None
            return self._stored(tmpfile, Method.REFLINKED)

    def _hardlinked(self, fd: int) -> Imported | None:
        if not self._seal_sources:
            return None
        try:
            digest, new = self._objects.link_file(fd)
        except OSError as exc:
            if exc.errno not in _IMPOSSIBLE:
                raise
            return None
        return Imported(digest, os.fstat(fd).st_size, _method(new, Method.HARDLINKED))

    def _copied(self, fd: int) -> Imported:
        if self._zerocopy:
            raise NotShareable(
                "reflink and hardlink both failed; copy fallback is disabled (zerocopy mode)"
            )
        with self._objects.new_file() as tmpfile:
            offset = 0
            while count := os.sendfile(tmpfile.fileno(), fd, offset, _COPY_BYTES):
                offset += count
            return self._stored(tmpfile, Method.COPIED)

    def _stored(self, tmpfile: Tmpfile, method: Method) -> Imported:
        size_bytes = os.fstat(tmpfile.fileno()).st_size
        digest, new = self._objects.add_file(tmpfile)
        return Imported(digest, size_bytes, _method(new, method))


def _method(new: bool, method: Method) -> Method:
    return method if new else Method.ALREADY_PRESENT
