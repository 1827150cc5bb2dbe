"""Lints of files that a build leaves in directories of which a machine has its own content.

The lints do not look into mounts: files that are mounted during the build do not get into the
image.
"""

from __future__ import annotations

import stat

from bootc.formats.shellquote import shell_quoted
from bootc.fs.dir import Dir
from bootc.fs.imageroot import ImageRoot
from bootc.fs.visit import is_mount_point, visit
from bootc.lint.model import LintFinding, Listing, lists

_RUNTIME_ONLY = ("run", "tmp")
#: The mount point of a file that container engines mount. It remains after the build, together
#: with the directories above.
_ENGINES_FILE = "/run/systemd/resolve/stub-resolv.conf"
_LOGS = "var/log"


def nonempty_run_tmp(root: ImageRoot) -> LintFinding | None:
    """Find files below ``/run`` and ``/tmp``. Other file systems cover them on a machine."""
    found: dict[str, None] = {}
    for name in _RUNTIME_ONLY:
        directory = _directory(root, name)
        if directory is None:
            continue
        with directory:
            for visited in visit(directory):
                if not is_mount_point(visited):
                    found[f"/{name}/{visited.path}"] = None
    _forget_engines_file(found)
    header = "Found content in runtime-only directories (/run, /tmp)"
    return lists(Listing(header, [shell_quoted(path) for path in found]))


def var_log(root: ImageRoot) -> LintFinding | None:
    """Find files below ``/var/log`` that are not empty."""
    directory = _directory(root, _LOGS)
    if directory is None:
        return None
    found = []
    with directory:
        for visited in visit(directory):
            info = visited.entry.stat(follow_symlinks=False)
            if stat.S_ISREG(info.st_mode) and info.st_size and not is_mount_point(visited):
                found.append(shell_quoted(f"/{_LOGS}/{visited.path}"))
    return lists(Listing("Found non-empty logfiles", found))


def _directory(root: ImageRoot, path: str) -> Dir | None:
    """Open a directory of the image, or return None if there is no directory."""
    # api-base-directories reports another kind of file in its place.
    try:
        return root.open_dir(path, same_mount=True)
    except NotADirectoryError:
        return None


def _forget_engines_file(found: dict[str, None]) -> None:
    """Drop the file, and each directory above it without other content."""
    path = _ENGINES_FILE
    while path.count("/") > 1:
        if any(other.startswith(f"{path}/") for other in found):
            return
        found.pop(path, None)
        path = path.rpartition("/")[0]
