"""How much room a boot menu takes on its file system, counted as FAT does. Reads only.

Files take whole clusters. So do directories, where a name is a record of 32 bytes and, in its
long form, one more for every 13 characters. No other file system takes more for a few small
files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bootc.boot.foreign_entries import differing
from bootc.boot.menu_read import MAX_MENU_BYTES, foreign_files, is_foreign
from bootc.boot.publish import files_below
from bootc.boot.replacing import whole_file
from bootc.boot.scheme import USER_CFG, BootDirs
from bootc.formats import grubcfg
from bootc.formats.grubcfg import GrubCfgError
from bootc.fs.dir import Dir

_RECORD_BYTES = 32
_RECORD_CHARACTERS = 13
#: Whatever is written gets a temporary name first, for which a directory may have to grow.
_TEMPORARY = 1


def staging_clusters(dirs: BootDirs, files: Sequence[tuple[str, bytes]], cluster_bytes: int) -> int:
    """Return how many clusters a staged menu of these files takes, with what is others' in it.

    Raises:
        OSError: the live menu cannot be read.
    """
    if dirs.scheme.menu_is_file:
        entries = [entry for _, data in files for entry in grubcfg.parse_menu(data)]
        return _file(len(whole_file(dirs, entries)), cluster_bytes) + _TEMPORARY
    count = sum(_file(len(data), cluster_bytes) for _, data in files)
    names = [name for name, _ in files]
    if dirs.menu.exists(dirs.scheme.entries):
        with dirs.menu.open_dir(dirs.scheme.entries) as live:
            foreign = foreign_files(live)
            count += _files(live, foreign, cluster_bytes)
            names += foreign
    return count + _directory(names, cluster_bytes) + _TEMPORARY


def staged_clusters(dirs: BootDirs, cluster_bytes: int) -> int:
    """Return how many clusters the staged menu has now, which the next one gets.

    Raises:
        OSError: it cannot be read.
    """
    count = _files(dirs.menu, [dirs.scheme.staged], cluster_bytes)
    if not dirs.scheme.menu_is_file and dirs.menu.exists(dirs.scheme.staged):
        with dirs.menu.open_dir(dirs.scheme.staged) as staged:
            count += _directory(staged.names(), cluster_bytes)
    return count


def exchange_clusters(dirs: BootDirs, cluster_bytes: int) -> int:
    """Return how many clusters others' entries take that the staged menu has not, or not so.

    Raises:
        OSError: a menu cannot be read.
    """
    live, path = dirs.scheme.entries, dirs.scheme.staged
    if not (dirs.menu.exists(live) and dirs.menu.exists(path)):
        return 0
    if dirs.scheme.menu_is_file:
        data = dirs.menu.read_bytes(path, MAX_MENU_BYTES)
        try:
            entries = [entry for entry in grubcfg.parse_menu(data) if not is_foreign(entry)]
        except GrubCfgError:
            return 0  # The exchange will say so.
        current = whole_file(dirs, entries)
        return 0 if current == data else _file(len(current), cluster_bytes) + _TEMPORARY
    with dirs.menu.open_dir(live) as directory, dirs.menu.open_dir(path) as staged:
        names = differing(directory, staged)
        if not names:
            return 0
        count = _files(directory, names, cluster_bytes)
        return count + _directory(names, cluster_bytes) + _TEMPORARY


def removal_clusters(dirs: BootDirs, cluster_bytes: int) -> int:
    """Return how many clusters it takes to remove an entry of GRUB's menu in a file."""
    return _files(dirs.menu, [USER_CFG], cluster_bytes) + _TEMPORARY


def _files(above: Dir, names: Iterable[str], cluster_bytes: int) -> int:
    return sum(
        _file(info.st_size, cluster_bytes) for name in names for info in files_below(above, name)
    )


def _file(size_bytes: int, cluster_bytes: int) -> int:
    return -(-size_bytes // cluster_bytes)


def _directory(names: Iterable[str], cluster_bytes: int) -> int:
    records = 2 + sum(1 - (-len(name) // _RECORD_CHARACTERS) for name in names)
    return _file(records * _RECORD_BYTES, cluster_bytes)
