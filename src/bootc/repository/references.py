"""The names of a repository's images, and of its streams: links below ``refs/``.

Owns: reading and setting them (composefs, "Images and stream references"). Promises:
links change from old to new in one step, and are read, never followed.
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator

from bootc.errors import doing
from bootc.fs.atomic import replace_symlink
from bootc.fs.dir import Dir
from bootc.repository import layout
from bootc.repository.refs import (
    MAX_REFERENCES,
    BrokenReference,
    is_ref_name,
    parse_ref_target,
    ref_target,
)

#: What the kernel says of a name that is none of a link: of a directory, or below a link.
_NO_LINK = (errno.EINVAL, errno.ENOTDIR, errno.ENAMETOOLONG)


def read_link(directory: Dir, path: str) -> str:
    """Return what a link of a repository says.

    Raises:
        FileNotFoundError: there is nothing of that name.
        BrokenReference: there is something else than a link.
    """
    try:
        return directory.readlink(path)
    except NotADirectoryError as exc:
        # The directory is none: there is nothing in it.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), exc.filename) from exc
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        raise BrokenReference(f"{directory.path}/{path} is not a link") from exc


class References:
    """The references to entries of one directory of a repository.

    Args:
        directory: The repository; belongs to the caller.
        entries: Which directory: ``images`` or ``streams``.
    """

    def __init__(self, directory: Dir, entries: str) -> None:
        self._dir = directory
        self._refs = f"{entries}/{layout.REFS}"

    def get(self, name: str) -> str:
        """Return the entry a reference refers to.

        Raises:
            FileNotFoundError: there is no such reference.
            BrokenReference: it refers to something else than an entry.
        """
        path = self._path(name)
        with doing(f"Reading reference {name} in {self._dir.path}"):
            try:
                target = self._dir.readlink(path)
            except OSError as exc:
                if exc.errno in _NO_LINK:
                    raise FileNotFoundError(
                        errno.ENOENT, os.strerror(errno.ENOENT), exc.filename
                    ) from exc
                raise
            return parse_ref_target(name, target, f"{self._dir.path}/{path}")

    def set(self, name: str, entry: str) -> None:
        """Make a reference refer to an entry."""
        path = self._path(name)
        with doing(f"Setting reference {name} in {self._dir.path}"):
            self._dir.ensure_dir(path.rpartition("/")[0]).close()
            replace_symlink(self._dir, path, ref_target(name, entry))

    def remove(self, name: str) -> None:
        """Remove a reference.

        Raises:
            FileNotFoundError: there is no such reference.
        """
        path = self._path(name)
        with doing(f"Removing reference {name} in {self._dir.path}"):
            self._dir.unlink(path)

    def all(self, prefix: str = "") -> dict[str, str]:
        """Return entries by the complete names of the references in the directory ``prefix``.

        Raises:
            BrokenReference: a link refers to something else than an entry.
            OSError: EFBIG when there are more than :data:`MAX_REFERENCES`.
        """
        with doing(f"Reading references of {self._dir.path}"):
            found = dict(itertools.islice(self._walk(prefix), MAX_REFERENCES + 1))
            if len(found) > MAX_REFERENCES:
                what = f"there are more than {MAX_REFERENCES} references"
                raise OSError(errno.EFBIG, what, f"{self._dir.path}/{self._refs}")
            return found

    def _path(self, name: str) -> str:
        if not is_ref_name(name):
            raise ValueError(f"{name!r} cannot name a reference")
        return f"{self._refs}/{name}"

    def _walk(self, name: str) -> Iterator[tuple[str, str]]:
        path = f"{self._refs}/{name}" if name else self._refs
        try:
            with self._dir.open_dir(path) as below:
                entries = below.names(MAX_REFERENCES)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            where = f"{self._dir.path}/{path}"
            yield name, parse_ref_target(name, self._dir.readlink(path), where)
            return
        for entry in entries:
            yield from self._walk(f"{name}/{entry}" if name else entry)
