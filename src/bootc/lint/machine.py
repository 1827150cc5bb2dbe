"""Lints of files in an image that describe one machine or the operating system."""

from __future__ import annotations

import posixpath
import re

from bootc.formats.fstab import parse_fstab
from bootc.formats.osrelease import parse_os_release
from bootc.formats.shellquote import shell_quoted
from bootc.fs.imageroot import ImageRoot
from bootc.lint.model import LintFinding, Listing, lists

_MAX_BYTES = 1 << 20
_MACHINE_ID = re.compile(rb"[0-9a-f]{32}")
#: The initramfs mounts these from the image and from the state directory of the deployment.
_OF_THE_IMAGE = ("/", "/etc", "/sysroot", "/usr")
#: The places of os-release. The first file counts (os-release(5)).
_OS_RELEASE = ("usr/lib/os-release", "etc/os-release")
#: The fields that can be the title in a boot menu.
_TITLES = ("PRETTY_NAME", "NAME", "ID")


def fstab(root: ImageRoot) -> LintFinding | None:
    """Find mounts in ``/etc/fstab`` that conflict with the mounts of the initramfs."""
    mounts = parse_fstab(root.read("etc/fstab", _MAX_BYTES) or b"")
    found = [
        f"{shell_quoted(source)} {shell_quoted(target)}"
        for source, target in mounts
        if posixpath.normpath(f"/{target.lstrip('/')}") in _OF_THE_IMAGE
    ]
    return lists(Listing("Found mounts in /etc/fstab of what the initramfs mounts", found))


def machine_id(root: ImageRoot) -> LintFinding | None:
    """Find an id that all machines installed from the image would share."""
    data = root.read("etc/machine-id", _MAX_BYTES) or b""
    if not _MACHINE_ID.fullmatch(data.strip()):
        return None
    return "Found an id in /etc/machine-id, which all machines would share; empty the file"


def os_release(root: ImageRoot) -> LintFinding | None:
    """Find an os-release that gives no title for a boot menu."""
    for path in _OS_RELEASE:
        data = root.read(path, _MAX_BYTES)
        if data is None:
            continue
        try:
            data.decode()
        except UnicodeDecodeError as exc:
            return f"{path} is not UTF-8 at offset {exc.start}"
        release = parse_os_release(data)
        if release.title is None:
            return f"{path} has neither PRETTY_NAME, NAME nor ID, and boot menus no title"
        if not all(release.fields.get(name, "").isprintable() for name in _TITLES):
            return f"The name of the system in {path} holds a control character"
        return None
    return None


def skopeo(root: ImageRoot) -> LintFinding | None:
    """Find an image with bootc and without skopeo, which bootc needs to read registries."""
    if root.stat("usr/bin/bootc") is None or root.stat("usr/bin/skopeo") is not None:
        return None
    return "Found /usr/bin/bootc without /usr/bin/skopeo, which updates from a registry need"
