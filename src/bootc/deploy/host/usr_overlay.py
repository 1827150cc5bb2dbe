"""A writable ``/usr`` until the next reboot, for experiments.

The command mounts an overlay in memory over ``/usr``, in the mount namespace of the caller, which
is the host's. The image below does not change. A read-only overlay has no effect by itself: a
tool can make it writable in a namespace of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os

from bootc.deploy.host.boot_state import read_booted_state
from bootc.deploy.host.session import NotAllowed, NotBooted
from bootc.errors import Error, doing
from bootc.events import Message, Sink
from bootc.kernel.libc import AT_FDCWD
from bootc.kernel.mount import MOUNT_ATTR_RDONLY, mount_setattr, move_mount
from bootc.repository.mounting import mount_transient

_SOURCE = "transient"
_LABEL = "security.selinux"


class OtherOverlay(Error):
    """There is already an overlay of the other kind."""


def mount_usr_overlay(sink: Sink, *, read_only: bool) -> None:
    """Mount an overlay over ``/usr``, or say that there is one already.

    Args:
        sink: Told of the outcome.
        read_only: Mount it read-only.

    Raises:
        NotBooted: the system was not booted from an image.
        NotAllowed: the caller is not root.
        OtherOverlay: there is a read-only overlay, and the caller wants a writable one.
        OSError: the kernel refused.
    """
    booted = read_booted_state()
    if booted is None:
        raise NotBooted("usroverlay only applies on booted hosts")
    if os.geteuid() != 0:
        raise NotAllowed("This command must be executed as the root user")
    if booted.usr_overlay is not None:
        if booted.usr_overlay.access_mode == "readOnly" and not read_only:
            raise OtherOverlay(
                "A read-only overlayfs is already mounted on /usr", hint="first: umount /usr"
            )
        sink(Message("An overlayfs is already mounted on /usr"))
        return
    overlay("/usr", read_only=read_only)
    sink(
        Message(f"A {'read-only' if read_only else 'read/write'} overlayfs is now mounted on /usr")
    )
    sink(Message("All changes there will be discarded on reboot."))


def overlay(path: str, *, read_only: bool) -> None:
    """Mount a writable view of a directory over it, kept in memory.

    Raises:
        OSError: the kernel refused; its own words are in the notes.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(doing(f"Mounting an overlayfs on {path}"))
        lower_fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, lower_fd)
        mount_fd = mount_transient(lower_fd, source=_SOURCE)
        stack.callback(os.close, mount_fd)
        _copy_label(path, f"/proc/self/fd/{mount_fd}/.")
        if read_only:
            mount_setattr(mount_fd, set_attrs=MOUNT_ATTR_RDONLY)
        move_mount(mount_fd, "", AT_FDCWD, path)


def _copy_label(source: str, target: str) -> None:
    """Give the top of the overlay the SELinux label of the directory that it covers.

    A directory in memory has the label of temporary files, and confined services would lose
    access to all of ``/usr``.
    """
    try:
        label = os.getxattr(source, _LABEL)
    except OSError as exc:
        if exc.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return
        raise
    os.setxattr(target, _LABEL, label)
