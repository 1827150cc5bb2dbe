"""Removing the previous system of a machine that was installed in place of it.

``bootc install to-existing-root --cleanup`` leaves a mark in the physical root, and a unit of the
installed system removes the previous system at its first boot. Only the programs of the previous
system and what they can make again are removed: ``/usr`` and the links to it, container storage and
caches. Its ``/etc``, the rest of ``/var``, ``/home``, ``/root``, ``/srv`` and ``/opt`` are kept,
because users have files there.

The mark is removed last, so an interrupted removal goes on at the next boot. Mounts are never
entered.

Source of the name of the mark: bootc, ``bootc-destructive-cleanup.service``.
"""

from __future__ import annotations

import contextlib
import errno
from typing import TYPE_CHECKING

from bootc.errors import doing
from bootc.events import Message, Sink
from bootc.fs import atomic
from bootc.fs.descent import MountPoint
from bootc.fs.dir import Dir

if TYPE_CHECKING:
    from bootc.deploy.host.session import HostSession

#: The mark, below the physical root. Its directory is the ``/etc`` of the previous system.
MARK = "etc/bootc-destructive-cleanup"
_MARK_DIRECTORY, _MARK_NAME = MARK.split("/")
_PROGRAMS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr")
_REMAKABLE = ("var/lib/containers", "var/cache")


def mark_old_root(root: Dir) -> None:
    """Have the installed system remove the previous one. The mark is on the disk afterwards.

    Args:
        root: The physical root, with the previous system.

    Raises:
        OSError: writing failed.
    """
    with doing(f"Writing {MARK}"), root.ensure_dir(_MARK_DIRECTORY) as directory:
        atomic.write_file(directory, _MARK_NAME, b"", durable=True)


def remove_old_root(system: HostSession, sink: Sink) -> None:
    """Remove the previous system, if the installer left the mark.

    Raises:
        OSError: something cannot be removed. Everything else is, and the mark remains.
    """
    root = system.physical
    if not root.exists(MARK):
        return
    removed: list[str] = []
    failure: OSError | None = None
    for path in (*_PROGRAMS, *_REMAKABLE):
        try:
            if not root.exists(path):
                continue
            with doing(f"Removing {path} of the previous system"):
                root.remove_tree(path)
        except MountPoint:
            continue
        except OSError as exc:
            # Above it is a link, which leads to something that may not be of the old system.
            if exc.errno != errno.ELOOP:
                failure = failure or exc
        else:
            removed.append(path)
    if removed:
        sink(Message(f"Removed of the previous system: {', '.join(removed)}"))
    if failure is not None:
        raise failure
    with doing(f"Removing {MARK}"), contextlib.suppress(FileNotFoundError):
        root.unlink(MARK)
