"""Checks of a running host that read no content, and so take no time.

``etc-resolvconf``
    ``/etc/resolv.conf`` is not an empty file. Builders leave an empty file, and a system with it
    resolves no names.
``fsverity``
    If the kernel command line demands fs-verity, one object of each directory of the repository
    has it. :mod:`bootc.repository.fsck` checks all objects.

Source: bootc, "internals fsck".
"""

from __future__ import annotations

import os
import stat

from bootc.deploy.host.session import HostAccess
from bootc.kernel import fsverity
from bootc.repository.adoption import sample_objects
from bootc.repository.sealing import Verity


def check_host(
    system: HostAccess, *, root: str = "/", verity: Verity = fsverity
) -> dict[str, str | None]:
    """Return the problem that each check found, or None, by the name of the check.

    Raises:
        OSError: the repository cannot be read.
    """
    return {
        "etc-resolvconf": _resolvconf(os.path.join(root, "etc/resolv.conf")),
        "fsverity": _verity(system, verity),
    }


def _resolvconf(path: str) -> str | None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    empty = stat.S_ISREG(found.st_mode) and found.st_size == 0
    return f"{path} is an empty file" if empty else None


def _verity(system: HostAccess, verity: Verity) -> str | None:
    if system.booted.missing_verity_allowed:
        return None
    for sampled in sample_objects(system.repository.dir, verity):
        if not sampled.has_verity:
            return f"{sampled.path} has no fs-verity"
    return None
