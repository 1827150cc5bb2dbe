"""The root file system in ``/etc/fstab`` of a system that was booted from an image.

An installer of other systems writes a line for the root that mounts it for writing. The root of an
image is read-only, and **systemd-remount-fs** would fail at each boot.

Source: bootc, "systemd units", fixup-etc-fstab; systemd-remount-fs.service(8).
"""

from __future__ import annotations

from bootc.deploy.host.boot_state import booted_image
from bootc.deploy.host.overlays import writable_overlays
from bootc.deploy.host.session import NotBooted
from bootc.errors import doing
from bootc.events import Message, Sink
from bootc.formats.fstab import with_read_only_root
from bootc.fs import atomic
from bootc.fs.dir import Dir
from bootc.fs.mounts import read_mounts

_NAME = "fstab"
_COMMENT = b"bootc: the root file system is an image, which is read-only"
_MAX_BYTES = 1 << 24


def make_root_read_only(sink: Sink) -> None:
    """Give the root file system in ``/etc/fstab`` the option ``ro``.

    If the root is writable or the file has no line for it, there is nothing to do.

    Raises:
        NotBooted: the system was not booted from an image.
        OSError: the file cannot be read or written.
    """
    mounts = read_mounts()
    if booted_image(mounts) is None:
        raise NotBooted(
            "System not booted via bootc", hint="run this on a machine that boots a deployment"
        )
    if "/" in writable_overlays(mounts):
        return
    with Dir.open("/etc") as etc:
        edit(etc, sink)


def edit(etc: Dir, sink: Sink) -> None:
    """Edit the file in a directory, if there is one and it needs that.

    Raises:
        OSError: the file cannot be read or written.
    """
    with doing("Making the root read-only in /etc/fstab"):
        try:
            fd = etc.open_regular(_NAME)
        except FileNotFoundError:
            return
        with open(fd, "rb") as file:
            before = etc.read_bytes(_NAME, _MAX_BYTES)
            after = with_read_only_root(before, _COMMENT)
            if after != before:
                atomic.write_file(etc, _NAME, after, like=file.fileno(), durable=True)
                sink(Message("/etc/fstab: the root file system is read-only now"))
