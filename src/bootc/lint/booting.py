"""Lints of what an image boots with: what an installation, or the machine, will stumble over.

A file that cannot be a kernel is taken for a stand-in, as tests and first stages of builds
have it, and nothing is said of what is beside it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from bootc.boot.image_content import content_of
from bootc.boot.image_kernel import ImageNotBootable, UkiFile, find_boot_resource
from bootc.boot.kargs import KARGS_D, KargsError, read_kargs_d
from bootc.boot.kernel_release import (
    MAX_CONFIG_BYTES,
    KernelTooOld,
    check_release,
    stated_releases,
)
from bootc.boot.uki import WrongUki, check_sealing
from bootc.boot.unpacked_kernel import MODULES, RootKernel, find_kernel
from bootc.errors import Error
from bootc.formats.initramfs import initramfs_names
from bootc.formats.kernelimage import HEAD_BYTES, is_kernel
from bootc.formats.pe import INITRD, PeError, Uki
from bootc.formats.shellquote import shell_quoted
from bootc.formats.tree import External, Leaf
from bootc.fs.imageroot import ImageRoot
from bootc.fs.outline import Outline
from bootc.lint.model import LintFinding, Listing, lists

#: What mounts the image at boot; upstream's and ours have the same name.
_STEP = b"usr/lib/bootc/initramfs-setup"


def installable(root: ImageRoot) -> LintFinding | None:
    """Find what an installation would refuse: too many kernels, entries, wrong arguments.

    Of a unified kernel image this compares the command lines of its profiles with each other, and
    reads those of its add-ons.
    """
    outline = Outline.read(root, ("boot", MODULES, KARGS_D))
    reasons = []
    try:
        read_kargs_d(outline.root, outline.read_content, os.uname().machine)
    except KargsError as exc:
        reasons.append(_sentence(exc))
    if _kernel(root) is not None:
        try:
            resource = find_boot_resource(outline.root)
            if isinstance(resource, UkiFile):
                check_sealing(resource, lambda leaf: _content(outline, leaf))
        except (ImageNotBootable, WrongUki, PeError) as exc:
            reasons.append(_sentence(exc))
    return lists(Listing("Found what bootc install will refuse", reasons))


def _content(outline: Outline, leaf: Leaf) -> BinaryIO:
    content = content_of(leaf)
    assert isinstance(content, External), "an outline has no other files"
    return open(outline.open(content.digest), "rb")


def kernel_version(root: ImageRoot) -> LintFinding | None:
    """Find a kernel too old to mount the image."""
    kernel = _kernel(root)
    if kernel is None:
        return None
    with _opened(root, kernel.path) as file:
        releases = stated_releases(file, unified=kernel.unified) or [kernel.version]
    for release in releases:
        directory = release if kernel.unified else kernel.version
        config = root.read(f"{MODULES}/{directory}/config", MAX_CONFIG_BYTES)
        try:
            check_release(release, config, whose="the image's kernel")
        except KernelTooOld as exc:
            return _sentence(exc)
    return None


def initramfs(root: ImageRoot) -> LintFinding | None:
    """Find an initramfs that will not mount the image."""
    kernel = _kernel(root)
    if kernel is None:
        return None
    if kernel.unified:
        path = kernel.path
        with _opened(root, path) as file:
            pieces = Uki.read(file).chunks(INITRD)
            found = _has_step(lambda size: next(pieces, b""))
    else:
        path = kernel.initramfs
        if root.stat(path) is None:
            return None  # an installation refuses the image, as the lint above says
        with _opened(root, path) as file:
            found = _has_step(file.read)
    if found:
        return None
    return (
        f"Found no {_STEP.decode()} in the initramfs of {shell_quoted(path)}, so that it does "
        "not mount the image; dracut's module bootc brings it"
    )


def _has_step(read: Callable[[int], bytes]) -> bool:
    return any(name == _STEP for name in initramfs_names(read))


def _kernel(root: ImageRoot) -> RootKernel | None:
    """Return the kernel of an image, unless there is only a stand-in for one."""
    kernel = find_kernel(root)
    if kernel is None:
        return None
    with _opened(root, kernel.path) as file:
        return kernel if is_kernel(file.read(HEAD_BYTES)) else None


@contextmanager
def _opened(root: ImageRoot, path: str) -> Iterator[BinaryIO]:
    fd = root.open_file(path)
    if fd is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    with open(fd, "rb") as file:
        yield file


def _sentence(exc: Error) -> str:
    return exc.message if exc.hint is None else f"{exc.message} ({exc.hint})"
