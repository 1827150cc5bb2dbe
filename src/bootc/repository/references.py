"""The names of a repository's images, and of its streams: links below ``refs/``.

Owns: reading and setting them (composefs, "Images and stream references"). Promises:
links change from old to new in one step, and are read, never followed. What others put
below ``refs/`` hides no reference: it is passed over, and a warning says so.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator

from bootc.errors import doing
from bootc.fs.atomic import replace_symlink
from bootc.fs.descent import Descent
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

    def all(self, prefix: str = "") -> dict[str, str]:
        """Return entries by the complete names of the references in the directory ``prefix``.

        What is no reference is passed over, with a warning.
        """
        path = f"{self._refs}/{prefix}" if prefix else self._refs
        found: dict[str, str] = {}
        with doing(f"Reading references of {self._dir.path}"):
            try:
                top = self._dir.open_dir(path)
            except FileNotFoundError:
                return found
            except OSError as exc:
                if exc.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                _log.warning("%s/%s is no directory: passed over", self._dir.path, path)
                return found
            with top:
                for below, mode, target in walk_links(top):
                    name = f"{prefix}/{below}" if prefix else below
                    where = f"{top.path}/{below}"
                    if target is None:
                        _log.warning("%s is passed over: %s", where, _no_link(mode))
                        continue
                    try:
                        found[name] = parse_ref_target(name, target, where)
                    except BrokenReference as exc:
                        _log.warning("%s: passed over", exc.message)
        return found

    def _path(self, name: str) -> str:
        if not is_ref_name(name):
            raise ValueError(f"{name!r} cannot name a reference")
        return f"{self._refs}/{name}"


def walk_links(top: Dir) -> Iterator[tuple[str, int, str | None]]:
    """Yield everything below ``refs/`` but directories.

    Yields:
        Its path below ``top``, its mode, and what it says if it is a link.

    Raises:
        OSError: a directory or a link cannot be read.
    """
    with Descent(top.fileno(), top.path) as way:
        # A list instead of recursion: names may be nested deeper than Python calls.
        pending = [sorted(os.listdir(way.fileno()), reverse=True)]
        while pending:
            if not pending[-1]:
                pending.pop()
                if pending:
                    way.leave()
                continue
            name = pending[-1].pop()
            mode = os.stat(name, dir_fd=way.fileno(), follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                pending.append(sorted(os.listdir(way.enter(name)), reverse=True))
                continue
            target = os.readlink(name, dir_fd=way.fileno()) if stat.S_ISLNK(mode) else None
            yield way.whole_relpath(name), mode, target


def _no_link(mode: int) -> str:
    return "it is a file and no link" if stat.S_ISREG(mode) else "it is no link"
