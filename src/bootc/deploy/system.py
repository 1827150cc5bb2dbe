"""A running system opened to be changed.

Owns what has to be so before anything may change: the user is root, the system was booted
from an image, no other command is at work, and the disks are writable. Promises: what is
mounted for it, and mounts that are made writable, are seen by this process only, and go with
it. A file system that is read-only as a whole becomes writable for everybody, and read-only
again at the end, before the next command may start; it stays writable if somebody else
writes to it by then, or if this process is killed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from bootc.boot import partitions
from bootc.boot.scheme import BootDirs
from bootc.deploy.booted import STAGED_MARKER, BootedState, in_container, read_booted_state
from bootc.deploy.sysroot import find_boot_dirs, find_scheme
from bootc.errors import Error, doing
from bootc.events import Sink
from bootc.fs import mounts, process
from bootc.fs.dir import Dir
from bootc.fs.lock import lock_exclusive
from bootc.kernel import mount
from bootc.repository.repository import Repository

FINALIZER = "bootc-finalize-staged.service"
#: Held by one command at a time.
_LOCK = "run/bootc"


class NotBooted(Error):
    """The system was not booted from an image, so that there is nothing to update."""


class NotAllowed(Error):
    """Only root may change the system."""


class ReadOnlySystem(Error):
    """The disk refuses writes."""


class Services(Protocol):
    """What the service manager does for us."""

    def start_finalizer(self) -> None:
        """Have the staged deployment finalized when the machine goes down."""


class Systemd:
    """The service manager of a booted machine."""

    def start_finalizer(self) -> None:
        """Start the unit whose stopping finalizes.

        Raises:
            CommandFailed, ToolMissing: it cannot be started.
        """
        with doing(f"Starting {FINALIZER}"):
            process.run(["systemctl", "start", "--quiet", FINALIZER])


@dataclass(frozen=True, slots=True)
class System:
    """An open system.

    Attributes:
        physical: The physical root.
        repository: Its repository, writable.
        boot: Where menus and kernels lie.
        run: Where a staged deployment is announced.
        booted: What volatile state said when it was opened.
        services: The service manager.
        wait: Wait for others who use the repository, where that has to be alone.
    """

    physical: Dir
    repository: Repository
    boot: BootDirs
    run: Dir
    booted: BootedState
    services: Services
    wait: bool = True

    def sync(self) -> None:
        """Return when all that was written is on the disks."""
        self.repository.sync()
        self.physical.sync()
        self.boot.sync()


@contextlib.contextmanager
def open_system(sink: Sink, *, root: str = "/", wait: bool = True) -> Iterator[System]:
    """Open the system mounted at ``root`` to change it.

    The process is in a mount namespace of its own afterwards.

    Args:
        sink: Told when another command has to be waited for.
        root: Where the system is mounted.
        wait: Wait for another command to finish.

    Raises:
        NotBooted, NotAllowed, ReadOnlySystem: it cannot be changed.
        LockedByOther: another command is at work, and ``wait`` is false.
        Error, OSError: a part of it cannot be opened.
    """
    _require_host(root)
    with contextlib.ExitStack() as stack:
        with Dir.open(root) as top:
            lock = stack.enter_context(top.ensure_dir(_LOCK))
            run = stack.enter_context(top.ensure_dir(os.path.dirname(STAGED_MARKER)))
        lock_exclusive(lock, wait=wait, sink=sink)
        booted = read_booted_state(root=root)
        if booted is None:
            raise NotBooted("System not booted via bootc")
        mounts.private_mount_namespace()
        physical = stack.enter_context(_writable(os.path.join(root, "sysroot")))
        repository = stack.enter_context(
            Repository.open(
                physical,
                require_verity=not booted.missing_verity_allowed,
                writable=True,
                wait=wait,
                sink=sink,
            )
        )
        scheme = find_scheme(physical, booted)
        boot = stack.enter_context(find_boot_dirs(physical, scheme, root=root, writable=True))
        yield System(physical, repository, boot, run, booted, Systemd(), wait)


def _require_host(root: str) -> None:
    if in_container(root):
        raise NotAllowed("Detected container; this command requires a booted host system.")
    if os.geteuid() != 0:
        raise NotAllowed("This command must be executed as the root user")


@contextlib.contextmanager
def _writable(path: str) -> Iterator[Dir]:
    """Open the physical root, which every system mounts read-only, for writing."""
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(Dir.open(path))
        with doing(f"Making {path} writable"):
            device = partitions.backing_device(directory)
            if partitions.is_read_only(device):
                raise ReadOnlySystem(
                    f"Cannot perform this operation: {path} is on a read-only block device "
                    "(e.g. a live ISO)",
                    hint="make the disk writable, or run this on the installed system",
                )
            mount.mount(None, path, None, mount.MS_REMOUNT | mount.MS_BIND)
            stack.enter_context(mounts.writable_filesystem(directory.fileno(), path))
        yield directory
