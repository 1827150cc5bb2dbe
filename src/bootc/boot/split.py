"""Moves the kernel out of an unpacked image, for a build that makes a unified kernel image of it.

Promises: at every moment each file is complete in the image, or complete and on the disk in the
output. Running it again completes an interrupted run.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator

from bootc.boot.scheme import VMLINUZ
from bootc.boot.unpacked_kernel import INITRAMFS, MODULES, find_kernel
from bootc.errors import Error, doing
from bootc.formats.shellquote import shell_quoted
from bootc.fs.atomic import write_stream
from bootc.fs.dir import Dir
from bootc.fs.imageroot import ImageRoot
from bootc.fs.tree_copy import copy_metadata

#: The checksum of the kernel for FIPS mode. It must be beside the kernel, so it moves as well.
HMAC = ".vmlinuz.hmac"
#: In the order in which they leave the image. ``vmlinuz`` is last: a repeated run finds the kernel
#: by it.
_REQUIRED = (INITRAMFS, VMLINUZ)
_CHUNK_BYTES = 1 << 20


class NotSplit(Error):
    """An image has no kernel that can be moved. Nothing was changed."""


def split_kernel(image: ImageRoot, output: Dir) -> str:
    """Move the kernel and the initramfs of an image into a directory named like the version.

    Args:
        image: The image.
        output: Gets this directory. It may be in the image or outside, in any file system.

    Returns:
        The version of the kernel.

    Raises:
        NotSplit: there is no kernel or no initramfs, or the kernel is a unified kernel image.
        SeveralKernels: there are several kernels.
        OSError: reading or writing failed.
    """
    kernel = find_kernel(image)
    if kernel is None:
        raise NotSplit("No kernel found in rootfs")
    if kernel.unified:
        raise NotSplit(
            "UKIs are not supported",
            hint=f"{shell_quoted(kernel.path)} is a UKI; split before you build it",
        )
    source = image.open_dir(f"{MODULES}/{kernel.version}")
    assert source is not None, "find_kernel looked into it"
    with source, contextlib.ExitStack() as stack:
        # Before anything is made: a kernel that is refused leaves no directory.
        names = _names(source, output, kernel.version)
        target = stack.enter_context(output.ensure_dir(kernel.version))
        for name in names:
            with doing(f"Copying {source.path}/{name}"):
                _copy(source, target, name)
        output.sync()
        for name in names:
            source.unlink(name)
        os.fsync(source.fileno())
    return kernel.version


def _names(source: Dir, output: Dir, version: str) -> list[str]:
    """Return the files that an earlier run has not moved yet."""
    names = [HMAC] if source.exists(HMAC) else []
    for name in _REQUIRED:
        if source.exists(name):
            names.append(name)
        elif not output.exists(f"{version}/{name}"):
            raise NotSplit(f"kernel {shell_quoted(version)} has no {name}")
    for name in names:
        if not stat.S_ISREG(source.stat(name).st_mode):
            raise NotSplit(f"{shell_quoted(f'{MODULES}/{version}/{name}')} is not a regular file")
    return names


def _copy(source: Dir, target: Dir, name: str) -> None:
    fd = source.open_regular(name)
    try:
        info = os.fstat(fd)
        write_stream(target, name, _chunks(fd))
    finally:
        os.close(fd)
    copy_metadata(_path(source, name), _path(target, name), info)


def _chunks(fd: int) -> Iterator[bytes]:
    while chunk := os.read(fd, _CHUNK_BYTES):
        yield chunk


def _path(directory: Dir, name: str) -> bytes:
    # The xattr calls take no directory descriptor.
    return b"/proc/self/fd/%d/%s" % (directory.fileno(), os.fsencode(name))
