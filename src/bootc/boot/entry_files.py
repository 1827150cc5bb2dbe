"""Writes the files of one boot entry to a directory that no menu of bootc is in.

Promises: the boot entry comes last, and everything before it is on the disk then. If this fails,
no file has changed, unless the error comes from the last renames. After a crash the directory has
at most more files that no entry names, and the next run replaces them.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Callable

from bootc.boot.first_entry import ENTRIES, BootFiles
from bootc.boot.image_content import ObjectSource, checked_chunks, size_of
from bootc.boot.space import SPARE_CLUSTERS, NoSpaceOnBoot, free_space
from bootc.errors import Error, doing
from bootc.formats import bls
from bootc.fs.atomic import staged_stream
from bootc.fs.dir import Dir
from bootc.fs.parents import directories_made
from bootc.printable import shown
from bootc.sizes import human_size

#: Directories that all systems on a boot partition share.
_SHARED = ("EFI", "EFI/Linux", "loader", ENTRIES)


class NameTaken(Error):
    """A file system that ignores the case of letters has another name in the place of a new one."""


def write_boot_files(boot: Dir, found: BootFiles, objects: ObjectSource) -> None:
    """Write the kernel files of an image, and then its boot entry.

    Args:
        boot: The boot directory.
        found: The files. An existing file with the same path is replaced.
        objects: Where their content is.

    Raises:
        NameTaken: a name differs from an existing one only in the case of letters, which the file
            system ignores. Nothing was written.
        NoSpaceOnBoot: the file system has too little room. Nothing was written.
        DamagedKernel: the stored content is not the content that the image names.
        BlsError: the boot entry cannot be written as text.
        OSError: reading or writing failed.
    """
    entry = None if found.entry is None else bls.serialise_entry(found.entry)
    _check_names(boot, found)
    _check_room(boot, found)
    with contextlib.ExitStack() as stack:
        stack.enter_context(doing(f"Writing boot files to {boot.path}"))
        commits: list[Callable[[], None]] = []
        for path, leaf in found.files.items():
            home, _, name = path.rpartition("/")
            directory = stack.enter_context(_home(stack, boot, home))
            chunks = checked_chunks(leaf, objects, path)
            commits.append(stack.enter_context(staged_stream(directory, name, chunks)))
        if entry is not None:
            directory = stack.enter_context(_home(stack, boot, ENTRIES))
            commits.append(stack.enter_context(staged_stream(directory, found.entry_name, [entry])))
        # The names of new directories, which no fsync of a file writes.
        boot.sync()
        for commit in commits:
            commit()


def _home(stack: contextlib.ExitStack, boot: Dir, path: str) -> Dir:
    if not path:
        return boot.open_dir(".")
    # By path: a failure removes the new directories, also those above.
    stack.enter_context(directories_made(posixpath.join(boot.path, path)))
    return boot.open_dir(path)


def _check_names(boot: Dir, found: BootFiles) -> None:
    """Check that no path is that of another entry, whose id differs in the case of letters."""
    paths = [*found.files, *([] if found.entry is None else [f"{ENTRIES}/{found.entry_name}"])]
    # Each path, and the directories above it.
    parts = (path[: end or None] for path in paths for end in (*_slashes(path), 0))
    for path in dict.fromkeys(parts):
        if path in _SHARED or not boot.exists(path):
            continue
        parent, _, name = path.rpartition("/")
        with boot.open_dir(parent or ".") as directory:
            names = directory.names()
        if name not in names:
            other = next((one for one in names if one.lower() == name.lower()), "another file")
            raise NameTaken(
                f"{directory.path} has {shown(other)}, and its file system takes "
                f"{shown(name)} for the same name",
                hint="choose another --entry-id, or remove the other entry first",
            )


def _slashes(path: str) -> list[int]:
    return [index for index, char in enumerate(path) if char == "/"]


def _check_room(boot: Dir, found: BootFiles) -> None:
    free_bytes, cluster_bytes = free_space(boot)
    clusters = SPARE_CLUSTERS
    # All new files are written beside the ones that they replace.
    for leaf in found.files.values():
        clusters += -(-size_of(leaf) // cluster_bytes)
    if clusters * cluster_bytes > free_bytes:
        raise NoSpaceOnBoot(
            f"{boot.path} has {human_size(free_bytes)} free, "
            f"but the boot files need {human_size(clusters * cluster_bytes)}",
            hint="remove files of other systems there, or name another --bootdir",
        )
