"""Copies the entries of other systems from one directory of boot entries to another.

Promises: afterwards both directories have the same foreign files, directories and symlinks,
with the same content. A file that is already the same is not written again.
"""

from __future__ import annotations

import stat

from bootc.boot.menu_read import foreign_files
from bootc.errors import doing
from bootc.fs import tree_copy
from bootc.fs.atomic import write_stream
from bootc.fs.dir import Dir, same_content


def carry_foreign(live: Dir, staged: Dir) -> None:
    """Make the foreign entries of ``staged`` the same as those of ``live``.

    Raises:
        OSError: reading or writing failed; a note names the file.
    """
    names = foreign_files(live)
    for name in set(foreign_files(staged)).difference(names):
        staged.remove_tree(name)
    for name in names:
        with doing(f"Copying {name!a}"):
            _copy(live, staged, name)


def differing(live: Dir, staged: Dir) -> list[str]:
    """Return the foreign names in ``live`` that :func:`carry_foreign` will write.

    Raises:
        OSError: reading failed.
    """
    return [
        name
        for name in foreign_files(live)
        if not stat.S_ISREG(live.stat(name).st_mode) or not same_content(live, name, staged, name)
    ]


def _copy(live: Dir, staged: Dir, name: str) -> None:
    kind = stat.S_IFMT(live.stat(name).st_mode)
    if kind == stat.S_IFREG:
        if not same_content(live, name, staged, name):
            write_stream(staged, name, live.read_chunks(name))
        return
    staged.remove_tree(name)
    if kind == stat.S_IFDIR:
        with live.open_dir(name) as source, staged.ensure_dir(name) as target:
            tree_copy.copy_tree(source, target)
    elif kind == stat.S_IFLNK:
        staged.symlink(live.readlink(name), name)
