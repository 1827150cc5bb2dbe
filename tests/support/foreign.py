"""Things that others leave where a repository, a menu or deployments are kept."""

from __future__ import annotations

import os
from pathlib import Path

#: What :func:`plant_in_refs` makes, by its name.
FOREIGN_REFS = ("elsewhere", "dangling", "file", "loop", "pipe", "not-utf8-\udcff")


def plant_in_refs(directory: Path) -> None:
    """Make things in a directory of references that are no references."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, target in (
        ("elsewhere", "../../../elsewhere/x"),
        ("dangling", "/nowhere/at/all"),
        ("loop", "."),
        ("not-utf8-\udcff", b"\xff".decode("utf-8", "surrogateescape")),
    ):
        if not os.path.lexists(directory / name):
            (directory / name).symlink_to(target)
    (directory / "file").write_text("no link")
    if not (directory / "pipe").exists():
        os.mkfifo(directory / "pipe")
