"""The lint of ``/var``: systemd-tmpfiles must know its directories and links.

Only an installation copies the ``/var`` of the image. After an update a new directory exists only
if systemd-tmpfiles creates it, by a file of ``tmpfiles.d``.
"""

from __future__ import annotations

import os
import stat

from bootc.formats.accounts import parse_accounts
from bootc.formats.shellquote import shell_quoted
from bootc.formats.systemdlines import tmpfiles_path, typed_names
from bootc.fs.imageroot import ImageRoot
from bootc.fs.visit import Visited, visit
from bootc.lint.dropins import drop_ins
from bootc.lint.model import LintFinding, Listing, lists

_TMPFILES_D = ("usr/lib/tmpfiles.d", "etc/tmpfiles.d")
_MAX_BYTES = 1 << 24
_VAR_RUN, _RUN = "/var/run", "/run"


def var_tmpfiles(root: ImageRoot) -> LintFinding | None:
    """Find directories and links of ``/var`` without a line, and files of other kinds."""
    directory = root.open_dir("var", same_mount=True)
    if directory is None:
        return None
    known = _known_paths(root)
    users, groups = _Names(root, "passwd"), _Names(root, "group")
    lines, others = [], []
    with directory:
        for visited in visit(directory, descend=lambda path: path != "run"):
            path = f"/var/{visited.path}"
            if _run_for_var_run(path) in known:
                continue
            info = visited.entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode) or stat.S_ISLNK(info.st_mode):
                lines.append(_line(path, visited, users[info.st_uid], groups[info.st_gid]))
            else:
                others.append(shell_quoted(path.removeprefix("/")))
    return lists(
        Listing("Found content in /var missing systemd tmpfiles.d entries", sorted(lines)),
        Listing("Found non-directory/non-symlink files in /var", others),
    )


class _Names:
    """Names of users or groups by number. A number without a name is its own name."""

    def __init__(self, root: ImageRoot, file: str) -> None:
        accounts = parse_accounts(root.read(f"etc/{file}", _MAX_BYTES) or b"")
        self._names = {number: name for name, number in reversed(accounts.items())}

    def __getitem__(self, number: int) -> str:
        return self._names.get(number, str(number))


def _line(path: str, visited: Visited, user: str, group: str) -> str:
    """Return the line of ``tmpfiles.d`` that creates a directory or link."""
    shown = tmpfiles_path(_run_for_var_run(path))
    if visited.entry.is_symlink():
        target = os.readlink(visited.entry.name, dir_fd=visited.parent)
        return f"L {shown} - - - - {tmpfiles_path(_run_for_var_run(target))}"
    mode = stat.S_IMODE(visited.entry.stat(follow_symlinks=False).st_mode)
    return f"d {shown} {mode:04o} {tmpfiles_path(user)} {tmpfiles_path(group)} - -"


def _known_paths(root: ImageRoot) -> set[str]:
    """Return the paths in ``tmpfiles.d``, both as they are written and resolved."""
    known: set[str] = set()
    for data in drop_ins(root, _TMPFILES_D):
        for _, path in typed_names(data):
            clean = f"/{path.strip('/')}"
            known.add(_run_for_var_run(clean))
            for resolved in (_resolved(root, clean), _resolved_above(root, clean)):
                known.add(_run_for_var_run(resolved))
    return known


def _resolved(root: ImageRoot, path: str) -> str:
    resolved = root.resolve(path)
    return path if resolved is None else f"/{resolved}"


def _resolved_above(root: ImageRoot, path: str) -> str:
    """Resolve all components except the last, which may be the link that a line creates."""
    above, _, name = path.rpartition("/")
    return f"{_resolved(root, above).rstrip('/')}/{name}"


def _run_for_var_run(path: str) -> str:
    """Return a path with ``/run`` instead of ``/var/run``."""
    # systemd-tmpfiles warns about lines with /var/run.
    if path == _VAR_RUN or path.startswith(f"{_VAR_RUN}/"):
        return _RUN + path.removeprefix(_VAR_RUN)
    return path
