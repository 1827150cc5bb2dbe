"""The SELinux labels of the top directories of writable overlays.

An overlay in memory has a new inode for its top directory. The initramfs step mounts it before
there is a policy, so SELinux has no label for it.

Source: bootc, "systemd units", relabel-overlay-mountpoints.
"""

from __future__ import annotations

import contextlib
import errno
import os

from bootc.deploy.host.overlays import writable_overlays
from bootc.errors import doing
from bootc.events import Message, Sink
from bootc.formats.filecontexts import FileType
from bootc.fs.dir import open_regular, read_all
from bootc.fs.mounts import read_mounts
from bootc.oci.selabel import MAX_FILE_BYTES, read_policy

_LABEL = "security.selinux"
_ENFORCE = "/sys/fs/selinux/enforce"


def relabel_overlays(sink: Sink) -> None:
    """Give the top directories of writable overlays the labels of the running system's policy.

    Without SELinux there is nothing to do.

    Raises:
        LabelError, FileContextsError: the policy cannot be used.
        OSError: a label cannot be set.
    """
    if not os.path.exists(_ENFORCE):
        return
    places = writable_overlays(read_mounts())
    policy = read_policy(_read) if places else None
    if policy is None:
        return
    for place in places:
        label = policy.lookup(place.encode(), FileType.DIRECTORY)
        if label is not None and _label_of(place) != label:
            with doing(f"Labelling {place}"):
                os.setxattr(place, _LABEL, label)
            sink(Message(f"{place}: labelled {label.decode(errors='replace')}"))


def _label_of(place: str) -> bytes | None:
    with contextlib.suppress(OSError):
        return os.getxattr(place, _LABEL).rstrip(b"\0")
    return None


def _read(path: str) -> bytes | None:
    """Return the content of a file of the running system, or None if there is no such file."""
    try:
        fd = open_regular(f"/{path}")
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise
    with open(fd, "rb", buffering=0) as file:
        return read_all(file.fileno(), f"/{path}", MAX_FILE_BYTES)
