"""The names of a repository's images, and of its streams: links below ``refs/``.

Owns: reading and setting them (composefs, "Images and stream references"). Promises:
links change from old to new in one step, and are read, never followed. What others put
below ``refs/`` hides no reference from who wants to pass over it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator

from bootc.errors import doing
from bootc.fs.atomic import replace_symlink
from bootc.fs.dir import Dir
from bootc.repository import layout
from bootc.repository.refs import BrokenReference, is_ref_name, parse_ref_target, ref_target

_log = logging.getLogger(__name__)

#: What the kernel says of a name that is none of a link: of a directory, or below a link.
_NO_LINK = (errno.EINVAL, errno.ENOTDIR, errno.ENAMETOOLONG)


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

    def all(self, prefix: str = "", *, pass_over: bool = False) -> dict[str, str]:
        """Return entries by the complete names of the references in the directory ``prefix``.

        Args:
            prefix: The directory; all of ``refs/`` if left out.
            pass_over: Pass over what is no reference, with a warning.

        Raises:
            BrokenReference: something is no reference.
        """
        found: dict[str, str] = {}
        with doing(f"Reading references of {self._dir.path}"):
            for name, entry in self._scan(prefix):
                if isinstance(entry, str):
                    found[name] = entry
                elif pass_over:
                    _log.warning("%s: passed over", entry.message)
                else:
                    raise entry
        return found

    def _scan(self, prefix: str) -> Iterator[tuple[str, str | BrokenReference]]:
        path = f"{self._refs}/{prefix}" if prefix else self._refs
        try:
            top = self._dir.open_dir(path)
        except FileNotFoundError:
            return
        except OSError as exc:
            if exc.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            yield prefix, BrokenReference(f"{self._dir.path}/{path} is no directory")
            return
        with top:
            for below, target in walk_links(top):
                name = f"{prefix}/{below}" if prefix else below
                where = f"{top.path}/{below}"
                if target is None:
                    yield name, BrokenReference(f"{where} is no link")
                    continue
                try:
                    yield name, parse_ref_target(name, target, where)
                except BrokenReference as exc:
                    yield name, exc

    def _path(self, name: str) -> str:
        if not is_ref_name(name):
            raise ValueError(f"{name!r} cannot name a reference")
        return f"{self._refs}/{name}"


def walk_links(top: Dir) -> Iterator[tuple[str, str | None]]:
    """Yield everything below ``refs/`` but directories.

    Yields:
        Its path below ``top``, and what it says if it is a link. A directory that is nested
        deeper than a path can be long counts as no link: no reference could be made in it.

    Raises:
        OSError: a directory or a link cannot be read.
    """
    # A list instead of recursion: names may be nested deeper than Python calls.
    pending = [""]
    while pending:
        above = pending.pop()
        try:
            directory = top.open_dir(above or ".")
        except OSError as exc:
            if exc.errno != errno.ENAMETOOLONG:
                raise
            yield above, None
            continue
        with directory:
            for name in directory.names():
                path = f"{above}/{name}" if above else name
                mode = directory.stat(name).st_mode
                if stat.S_ISDIR(mode):
                    pending.append(path)
                else:
                    yield path, directory.readlink(name) if stat.S_ISLNK(mode) else None
