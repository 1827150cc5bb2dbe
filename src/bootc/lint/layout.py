"""Lints of the directories and links that every bootable image has."""

from __future__ import annotations

import stat
from collections.abc import Callable

from bootc.formats.shellquote import double_quoted, shell_quoted
from bootc.fs.imageroot import ImageRoot
from bootc.lint.model import LintFinding, Listing, lists

#: Source: https://systemd.io/API_FILE_SYSTEMS/. Upstream adds /var.
_API_DIRECTORIES = ("dev", "proc", "sys", "run", "tmp", "var")
#: Where a base image has a copy of the root directory that derived images start from.
REFERENCE = "usr/share/doc/bootc/baseimage/base"
_OSTREE_TARGET = "sysroot/ostree"
#: The files that container engines put into a container, in upstream's order.
_INJECTED = ("etc/hostname", "etc/resolv.conf")
#: An image has its unified kernel images in this directory of /boot.
_EFI = "EFI"
#: Debian and others moved these directories into /usr, and left links in their places.
_MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")


def api_directories(root: ImageRoot) -> LintFinding | None:
    """Find the first of the directories that is missing, or that is not a directory."""
    for name in _API_DIRECTORIES:
        info = root.stat(name)
        if info is None:
            return f"Missing API filesystem base directory: /{name}"
        if not stat.S_ISDIR(info.st_mode):
            return f"Expected directory for API filesystem base directory: /{name}"
    return None


def baseimage_root(root: ImageRoot) -> LintFinding | None:
    """Find a missing or wrong ``/sysroot`` or ``/ostree``."""
    return here_and_in_reference(root, _sysroot_and_ostree)


def here_and_in_reference(
    root: ImageRoot, check: Callable[[ImageRoot], LintFinding | None]
) -> LintFinding | None:
    """Check a root, and the reference root that a base image may have in it."""
    finding = check(root)
    if finding is not None:
        return finding
    reference = root.open_dir(REFERENCE)
    if reference is None:
        return None
    with ImageRoot(reference) as below:
        return check(below)


def var_run(root: ImageRoot) -> LintFinding | None:
    """Find a ``/var/run`` that is not a link."""
    info = root.stat("var/run")
    if info is None or stat.S_ISLNK(info.st_mode):
        return None
    return "Not a symlink: var/run"


def etc_usretc(root: ImageRoot) -> LintFinding | None:
    """Find both ``/etc`` and ``/usr/etc``."""
    if root.stat("etc") is None or root.stat("usr/etc") is None:
        return None
    return (
        "Found /usr/etc - this is a bootc implementation detail and not supported "
        "to use in containers"
    )


def buildah_injected(root: ImageRoot) -> LintFinding | None:
    """Find the empty files that a container engine leaves where it mounts its own files."""
    for path in _INJECTED:
        info = root.stat(path)
        if info is not None and stat.S_ISREG(info.st_mode) and info.st_size == 0:
            return (
                f"/{path} is an empty file; this may have been synthesized by a container runtime."
            )
    return None


def nonempty_boot(root: ImageRoot) -> LintFinding | None:
    """Find a missing ``/boot``, or entries of it other than unified kernel images."""
    try:
        directory = root.open_dir("boot")
    except NotADirectoryError:
        directory = None
    if directory is None:
        return "Missing /boot directory"
    with directory:
        names = [shell_quoted(name) for name in directory.names() if name != _EFI]
    return lists(Listing("Found non-empty /boot", names))


def usr_merge(root: ImageRoot) -> LintFinding | None:
    """Find directories where a system with merged ``/usr`` has links.

    A ``COPY`` of a directory to this path replaces the link. Then nothing finds the programs and
    libraries that the link led to.
    """
    found = []
    for name in _MERGED:
        info, below = root.stat(name), root.stat(f"usr/{name}")
        if info is None or below is None:
            continue
        if stat.S_ISDIR(info.st_mode) and stat.S_ISDIR(below.st_mode):
            found.append(f"/{name}")
    return lists(Listing("Found directories that should be links to those below /usr", found))


def _sysroot_and_ostree(root: ImageRoot) -> LintFinding | None:
    info = root.stat("sysroot")
    if info is None:
        return "Missing /sysroot"
    if not stat.S_ISDIR(info.st_mode):
        return "Expected a directory for /sysroot"
    info = root.stat("ostree")
    if info is None:
        return f"Missing ostree -> {_OSTREE_TARGET} link"
    if not stat.S_ISLNK(info.st_mode):
        return "/ostree should be a symlink"
    target = root.readlink("ostree") or ""
    if target != _OSTREE_TARGET:
        return f"Expected /ostree -> {_OSTREE_TARGET}, not {double_quoted(target)}"
    return None
