"""Writable overlays over directories of the running image."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bootc.fs.mounts import Mount

_PLACES = ("/", "/etc", "/var")


def writable_overlays(mounts: Sequence[Mount]) -> list[str]:
    """Return which of ``/``, ``/etc`` and ``/var`` are writable overlays."""
    found = []
    for place in _PLACES:
        types = [mount.fstype for mount in mounts if mount.path == place]
        if types and types[-1] == "overlay" and not os.statvfs(place).f_flag & os.ST_RDONLY:
            found.append(place)
    return found
