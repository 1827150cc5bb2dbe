"""The lint that checks every name in the tree."""

from __future__ import annotations

import os

from bootc.formats.shellquote import double_quoted, shell_quoted
from bootc.fs.visit import Visited
from bootc.lint.model import LintFinding


def utf8(visited: Visited) -> LintFinding | None:
    """Find a name, or the target of a link, that is not UTF-8."""
    name = visited.entry.name
    if not _is_utf8(name):
        parent = visited.path.rpartition("/")[0]
        return f"{shell_quoted(f'/{parent}')}: Found non-utf8 filename {double_quoted(name)}"
    if visited.entry.is_symlink() and not _is_utf8(os.readlink(name, dir_fd=visited.parent)):
        return f"{shell_quoted(f'/{visited.path}')}: Found non-utf8 symlink target"
    return None


def _is_utf8(name: str) -> bool:
    if name.isascii():
        return True
    try:
        os.fsencode(name).decode()
    except UnicodeDecodeError:
        return False
    return True
