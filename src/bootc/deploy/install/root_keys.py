"""SSH keys with which somebody can log in as root on the installed machine.

The keys go into a file for systemd-tmpfiles in the ``/etc`` of the deployment, as upstream's
installer does since 1.17. At boot systemd-tmpfiles writes them to the home of root, with owner,
mode and SELinux label, unless the file exists. The file is a local change of ``/etc``, so updates
keep it.

Format: tmpfiles.d(5).
"""

from __future__ import annotations

import base64
import os
import time

from bootc.deploy.install.request import InstallRefused
from bootc.errors import doing
from bootc.formats.tree import Directory, Inline, Leaf, Stat, Symlink
from bootc.fs.dir import open_regular, read_all

#: The name of the file below ``/etc``. Upstream's programs use the same.
DROP_IN = "tmpfiles.d/bootc-root-ssh.conf"
_DIRECTORY, _NAME = DROP_IN.split("/")
#: systemd reads lines of less than 1 MiB.
_MAX_BYTES = 256 << 10
_LABEL = b"security.selinux"


def read_keys(path: str) -> bytes:
    """Return the content of a file in the format of ``authorized_keys``.

    Raises:
        InstallRefused: the file has no key, or is no text.
        OSError: it cannot be read, or is too large.
    """
    with doing(f"Reading {path}"), open(open_regular(path), "rb", buffering=0) as file:
        data = read_all(file.fileno(), path, _MAX_BYTES)
    lines = [line.strip() for line in data.split(b"\n")]
    if b"\0" in data or not any(line and not line.startswith(b"#") for line in lines):
        raise InstallRefused(
            f"{path} has no SSH key",
            hint="give --root-ssh-authorized-keys a file of public keys, one in each line",
        )
    return data


def home_of_root(root: Directory) -> str:
    """Return the path of root's home on the running machine, relative to ``/``.

    Args:
        root: The tree of the image.

    Raises:
        InstallRefused: the home is in the image, which is read-only.
    """
    home = root.lookup("root")
    if isinstance(home, Leaf) and isinstance(home.content, Symlink):
        path = os.path.normpath(os.fsdecode(home.content.target)).lstrip("/")
        if path.startswith("var/") and path.isprintable() and not set(path) & set(" \t%\\\"'"):
            return path
    raise InstallRefused(
        "root's home is in the image, where --root-ssh-authorized-keys cannot put keys",
        hint="make /root a link to var/roothome in the image, or put the keys into the image",
    )


def with_keys(etc: Directory, home: str, keys: bytes) -> Directory:
    """Return an ``/etc`` that makes the machine accept the keys.

    Args:
        etc: The ``/etc`` of the image. It is not changed.
        home: The result of :func:`home_of_root`.
        keys: The result of :func:`read_keys`.

    Raises:
        InstallRefused: ``/etc/tmpfiles.d`` of the image is no directory.
    """
    was = etc.entries.get(_DIRECTORY.encode(), Directory(Stat(0o755, xattrs=_label_of(etc))))
    if not isinstance(was, Directory):
        raise InstallRefused(f"/etc/{_DIRECTORY} of the image is not a directory")
    text = (
        f"d /{home}/.ssh 0700 root root -\n"
        f"f~ /{home}/.ssh/authorized_keys 0600 root root - {base64.b64encode(keys).decode()}\n"
    )
    # A policy gives the files of this directory its own label. The keys are not secret.
    meta = Stat(0o644, mtime_s=int(time.time()), xattrs=_label_of(was))
    directory = Directory(
        was.stat, {**was.entries, _NAME.encode(): Leaf(meta, Inline(text.encode()))}
    )
    return Directory(etc.stat, {**etc.entries, _DIRECTORY.encode(): directory})


def _label_of(directory: Directory) -> dict[bytes, bytes]:
    xattrs = directory.stat.xattrs
    return {_LABEL: xattrs[_LABEL]} if _LABEL in xattrs else {}
