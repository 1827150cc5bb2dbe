"""The links of a repository, above all the references to images and streams below ``refs/``.

Owns: reading and setting them (composefs, "Images and stream references"). Promises: a link
changes from its old to its new target in one step. Links are read and never followed. If
something that is no link is in the place of a new link, it is moved to ``quarantine/``.
Foreign files below ``refs/`` hide no reference from a caller who skips them.
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
from bootc.repository.links import (
    MAX_ENTRIES,
    MAX_REFERENCES,
    BrokenReference,
    is_ref_name,
    parse_ref_target,
    ref_target,
)

_log = logging.getLogger(__name__)

#: Leaves room for a number: a name has at most 255 bytes.
_MAX_NAME_BYTES = 240
#: Errors of the kernel if there is a link in the place of a directory.
_BROKEN = {
    errno.EINVAL: "is not a link",
    errno.EXDEV: "lies behind a link that leads out of the repository",
    errno.ELOOP: "lies behind links that lead nowhere",
}
#: Errors of the kernel if a path names no link: a directory, or a path below a link.
_NO_LINK = (errno.EINVAL, errno.ENOTDIR, errno.ENAMETOOLONG)


def place_link(directory: Dir, path: str, target: str, limit: int) -> None:
    """Create or replace a link of a repository, and move away other files in its place.

    Args:
        directory: The repository.
        path: The path of the link.
        target: The target of the link.
        limit: How many entries readers accept in the directory of the link.

    Raises:
        BrokenReference: a directory with other references is in its place.
        OSError: EFBIG if the directory has ``limit`` entries already; other errors.
    """
    above = path.rpartition("/")[0]
    _clear_way(directory, above)
    with directory.ensure_dir(above) as below:
        if not below.exists(path.removeprefix(f"{above}/")):
            below.names(limit - 1)
    try:
        replace_symlink(directory, path, target)
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        if _holds_links(directory, path):
            # What they refer to would be garbage.
            raise BrokenReference(
                f"{directory.path}/{path} is a directory that other references are in"
            ) from exc
        _log.warning("%s is not a link: moved to %s", path, quarantine(directory, path))
        replace_symlink(directory, path, target)


def _clear_way(directory: Dir, path: str) -> None:
    """Move away a file that is in the place of a directory."""
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        part = "/".join(parts[:depth])
        try:
            is_directory = stat.S_ISDIR(directory.stat(part).st_mode)
        except FileNotFoundError:
            return
        if not is_directory:
            moved = quarantine(directory, part)
            _log.warning("%s is not a directory: moved to %s", part, moved)
            return


def _holds_links(directory: Dir, path: str) -> bool:
    pending = [path]
    while pending:
        path = pending.pop()
        mode = directory.stat(path).st_mode
        if stat.S_ISLNK(mode):
            return True
        if stat.S_ISDIR(mode):
            with directory.open_dir(path) as below:
                pending += [f"{path}/{name}" for name in below.names(MAX_ENTRIES)]
    return False


def quarantine(directory: Dir, path: str, name: str | None = None) -> str:
    """Move a file, link or directory to ``quarantine/``, and return its new path.

    A link to an object remains valid.

    Args:
        directory: The repository.
        path: The path to move.
        name: The new name; the old one if left out. A number is added if the name is taken.
    """
    directory.ensure_dir(layout.QUARANTINE, 0o700).close()
    name = os.fsdecode(os.fsencode(name or path.rpartition("/")[2])[:_MAX_NAME_BYTES])
    free = target = f"{layout.QUARANTINE}/{name}"
    number = 0
    while directory.exists(free):
        number += 1
        free = f"{target}.{number}"
    directory.rename(path, free)
    return free


def read_link(directory: Dir, path: str) -> str:
    """Return the target of a link of a repository.

    Raises:
        FileNotFoundError: the path does not exist.
        BrokenReference: the path is no link.
    """
    try:
        return directory.readlink(path)
    except NotADirectoryError as exc:
        # The parent is no directory, so the path does not exist.
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), exc.filename) from exc
    except OSError as exc:
        if exc.errno not in _BROKEN:
            raise
        raise BrokenReference(f"{directory.path}/{path} {_BROKEN[exc.errno]}") from exc


class References:
    """The references to entries of one directory of a repository.

    Args:
        directory: The repository; belongs to the caller.
        entries: The directory: ``images`` or ``streams``.
    """

    def __init__(self, directory: Dir, entries: str) -> None:
        self._dir = directory
        self._refs = f"{entries}/{layout.REFS}"

    def get(self, name: str) -> str:
        """Return the entry a reference refers to.

        Raises:
            FileNotFoundError: there is no such reference.
            BrokenReference: it refers to something that is not an entry.
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
            place_link(self._dir, path, ref_target(name, entry), MAX_REFERENCES)

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
            pass_over: Skip files that are no reference, with a warning.

        Raises:
            BrokenReference: a file is no reference.
            OSError: EFBIG when there are more than :data:`MAX_REFERENCES`.
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
    """Yield everything below ``refs/`` except directories.

    Yields:
        The path below ``top``, and the target if it is a link. A directory that is nested
        deeper than a path can be long is yielded like a file: it cannot hold a reference.

    Raises:
        OSError: a directory or a link cannot be read; EFBIG when there are more than
            :data:`MAX_REFERENCES`.
    """
    # A list instead of recursion: names may be nested deeper than Python calls.
    pending = [""]
    found = 0
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
            names = directory.names(MAX_REFERENCES)
            found += len(names)
            if found > MAX_REFERENCES:
                what = f"there are more than {MAX_REFERENCES} references"
                raise OSError(errno.EFBIG, what, top.path)
            for name in names:
                path = f"{above}/{name}" if above else name
                mode = directory.stat(name).st_mode
                if stat.S_ISDIR(mode):
                    pending.append(path)
                else:
                    yield path, directory.readlink(name) if stat.S_ISLNK(mode) else None
