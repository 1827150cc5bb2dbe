"""A running system, opened to be changed or opened to be looked at.

Owns what has to be so before anything may change: the user is root, the system was booted
from an image, no other command is at work, and the disks are writable. Promises: what is
mounted for it, and mounts that are made writable, are seen by this process only, and go with
it. A file system that is read-only as a whole becomes writable for everybody, and read-only
again at the end, before the next command may start; it stays writable if somebody else
writes to it by then, or if this process is killed.

A command that only looks, or says what it would do, opens a :class:`HostView` instead.
That takes no lock, waits for no other command, makes no file system writable, and neither
checks nor mends one: another command may be at work meanwhile. The one exception is a dry
run that has to pull an image to know what would be done; it adds objects to the repository.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from bootc.boot import partitions
from bootc.boot.scheme import BootDirs
from bootc.deploy.host.boot_state import (
    STAGED_DIRECTORY,
    BootedState,
    in_container,
    read_booted_state,
)
from bootc.deploy.host.services import Services, Systemd
from bootc.deploy.host.view import (
    booted_slot,
    find_boot_dirs,
    find_scheme,
    preferred_esps,
    recorded_esps,
    require_menu,
)
from bootc.deploy.journal import Journal, SystemdJournal
from bootc.errors import Error, doing
from bootc.events import Sink
from bootc.fs import mounts
from bootc.fs.dir import Dir
from bootc.fs.lock import lock_among_root, lock_exclusive
from bootc.kernel import mount
from bootc.repository import adoption, legacy
from bootc.repository.repository import Repository

#: Nobody but root can open this one, and so nobody else can keep root waiting.
_LOCK = "lock"
_LOCK_MODE = 0o700
#: What older versions of this program hold instead. Anybody can open it.
_OLD_LOCK = "run/bootc"


class NotBooted(Error):
    """The system was not booted from an image, so that there is nothing to update."""


class NotAllowed(Error):
    """Only root may change the system."""


class ReadOnlySystem(Error):
    """The disk refuses writes."""


@dataclass(frozen=True, slots=True)
class HostSession:
    """A host opened to change it.

    Attributes:
        physical: The physical root.
        repository: Its repository, writable.
        boot: Where menus and kernels lie.
        run: Where a staged deployment is announced.
        booted: What volatile state said when it was opened.
        services: The service manager.
        journal: Where messages about changes go.
        wait: Wait for others who use the repository, where that has to be alone.
    """

    physical: Dir
    repository: Repository
    boot: BootDirs
    run: Dir
    booted: BootedState
    services: Services
    journal: Journal
    wait: bool = True

    def sync(self) -> None:
        """Return when all that was written is on the disks."""
        self.repository.sync()
        self.physical.sync()
        self.boot.sync()


class HostAccess(Protocol):
    """The parts of an open host that can be read: a :class:`HostSession` or a :class:`HostView`."""

    @property
    def physical(self) -> Dir:
        """The physical root."""

    @property
    def repository(self) -> Repository:
        """Its repository."""

    @property
    def boot(self) -> BootDirs:
        """Where menus and kernels lie."""

    @property
    def run(self) -> Dir | None:
        """Where a staged deployment is announced, if there is such a place."""

    @property
    def booted(self) -> BootedState:
        """What volatile state said when it was opened."""


@dataclass(frozen=True, slots=True)
class HostView:
    """A host opened to look at it. The attributes are those of :class:`HostAccess`."""

    physical: Dir
    repository: Repository
    boot: BootDirs
    run: Dir | None
    booted: BootedState


def opened_to_change(system: HostAccess) -> HostSession:
    """Return a host that the caller opened to change it. A view is only for dry runs."""
    assert isinstance(system, HostSession), "a view of a system is for dry runs"
    return system


@contextlib.contextmanager
def open_host_session(sink: Sink, *, root: str = "/", wait: bool = True) -> Iterator[HostSession]:
    """Open the system mounted at ``root`` to change it.

    A repository that another implementation has made is completed. The process is in a mount
    namespace of its own afterwards.

    Args:
        sink: Told when another command has to be waited for, and what is adopted.
        root: Where the system is mounted.
        wait: Wait for another command to finish.

    Raises:
        NotBooted, NotAllowed, ReadOnlySystem: it cannot be changed.
        NoBootMenu: the machine boots without a boot menu.
        VerityMissing: the kernel command line demands fs-verity, and objects have none.
        LockedByOther: another command is at work, and ``wait`` is false.
        Error, OSError: a part of it cannot be opened.
    """
    _require_host(root)
    with contextlib.ExitStack() as stack:
        with Dir.open(root) as top:
            old_lock = stack.enter_context(top.ensure_dir(_OLD_LOCK))
            run = stack.enter_context(top.ensure_dir(STAGED_DIRECTORY))
        lock = stack.enter_context(old_lock.ensure_dir(_LOCK, _LOCK_MODE))
        os.fchmod(lock.fileno(), _LOCK_MODE)
        lock_exclusive(lock, wait=wait, sink=sink)
        lock_among_root(old_lock, wait=wait, sink=sink)
        booted = _require_booted(root)
        mounts.private_mount_namespace()
        path = os.path.join(root, "sysroot")
        with Dir.open(path) as physical:
            require_menu(find_scheme(physical, booted))
        physical = stack.enter_context(_writable(path))
        if legacy.needs_upgrade(physical):
            legacy.upgrade(physical, secure=not booted.missing_verity_allowed)
        repository = stack.enter_context(
            Repository.open(
                physical,
                require_verity=not booted.missing_verity_allowed,
                adopt=True,
                writable=True,
                wait=wait,
                sink=sink,
            )
        )
        if repository.secure and not repository.sealed:
            adoption.require_adoptable(repository)
            adoption.adopt(repository, sink)
        boot = stack.enter_context(_boot_dirs(physical, booted, root, writable=True))
        yield HostSession(
            physical, repository, boot, run, booted, Systemd(), SystemdJournal(), wait
        )


@contextlib.contextmanager
def open_host_view(
    sink: Sink,
    *,
    root: str = "/",
    notes: bool = False,
    lock: bool = False,
    pulls: bool = False,
    wait: bool = True,
) -> Iterator[HostView]:
    """Open the system mounted at ``root`` to look at it.

    Args:
        sink: Told when a collection of garbage has to be waited for.
        root: Where the system is mounted.
        notes: Make the directory in memory where a look may leave what it found.
        lock: Keep collections of garbage away from the repository meanwhile.
        pulls: The same, and make the repository writable, so that an image can be pulled. The
            process is in a mount namespace of its own afterwards.
        wait: Wait for a collection of garbage to finish, rather than fail.

    Raises:
        NotBooted, NotAllowed: it is no such system, or not for this user to look at.
        ReadOnlySystem: the disk refuses writes, and ``pulls`` is true.
        LockedByOther: garbage is being collected, and ``wait`` is false.
        Error, OSError: a part of it cannot be opened.
    """
    _require_host(root)
    with contextlib.ExitStack() as stack:
        booted = _require_booted(root)
        with Dir.open(root) as top:
            run = _announcements(top, make=notes)
        if run is not None:
            stack.enter_context(run)
        path = os.path.join(root, "sysroot")
        if pulls:
            mounts.private_mount_namespace()
        physical = stack.enter_context(_writable(path) if pulls else Dir.open(path))
        repository = stack.enter_context(
            Repository.open(
                physical,
                require_verity=not booted.missing_verity_allowed,
                adopt=True,
                writable=pulls,
                lock=lock or pulls,
                wait=wait,
                sink=sink,
                infer=legacy.infer,
            )
        )
        if repository.secure and not repository.sealed:
            adoption.require_adoptable(repository)
        boot = stack.enter_context(_boot_dirs(physical, booted, root, writable=False))
        yield HostView(physical, repository, boot, run, booted)


def _boot_dirs(
    physical: Dir, booted: BootedState, root: str, *, writable: bool
) -> contextlib.AbstractContextManager[BootDirs]:
    return find_boot_dirs(
        physical,
        find_scheme(physical, booted),
        root=root,
        esps=preferred_esps(physical, booted),
        recorded=recorded_esps(physical, booted),
        writable=writable,
        slot=booted_slot(booted),
    )


def _require_host(root: str) -> None:
    if in_container(root):
        raise NotAllowed("Detected container; this command requires a booted host system.")
    if os.geteuid() != 0:
        raise NotAllowed("This command must be executed as the root user")


def _require_booted(root: str) -> BootedState:
    booted = read_booted_state(root=root)
    if booted is None:
        raise NotBooted("System not booted via bootc")
    return booted


def _announcements(top: Dir, *, make: bool) -> Dir | None:
    if make:
        return top.ensure_dir(STAGED_DIRECTORY)
    try:
        return top.open_dir(STAGED_DIRECTORY)
    except FileNotFoundError:
        return None


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
