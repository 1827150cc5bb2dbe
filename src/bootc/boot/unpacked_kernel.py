"""Finds the kernel of an unpacked image, for build tools.

The rules are those of upstream, because builds rely on them: the first
``boot/EFI/Linux/*.efi`` by name, or else the one directory of ``usr/lib/modules`` that has a
``vmlinuz``. An image may have no kernel. Two kernels are an error. Symlinks inside the image
are followed.

An installation has stricter rules: :mod:`bootc.boot.image_kernel`.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from bootc.boot.scheme import UKI_SUFFIX, VMLINUZ
from bootc.errors import Error
from bootc.formats.shellquote import shell_quoted
from bootc.fs.imageroot import ImageRoot

MODULES = "usr/lib/modules"
UKIS = "boot/EFI/Linux"
INITRAMFS = "initramfs.img"


class SeveralKernels(Error):
    """An image has more than one kernel."""


@dataclass(frozen=True, slots=True)
class RootKernel:
    """A kernel of an unpacked image.

    Attributes:
        version: The name of its directory, or of the unified kernel image without the suffix.
        path: The path of the unified kernel image, or of ``vmlinuz``.
        unified: Whether it is a unified kernel image.
    """

    version: str
    path: str
    unified: bool

    @property
    def initramfs(self) -> str:
        """The path of the initramfs of a kernel that is not a unified kernel image."""
        return f"{os.path.dirname(self.path)}/{INITRAMFS}"


def find_kernel(image: ImageRoot) -> RootKernel | None:
    """Return the kernel of an image, or None if it has no kernel.

    Raises:
        SeveralKernels: it has several kernels, and no unified kernel image.
    """
    for name in _names(image, UKIS):
        if name.endswith(UKI_SUFFIX) and name != UKI_SUFFIX:
            return RootKernel(name.removesuffix(UKI_SUFFIX), f"{UKIS}/{name}", unified=True)
    version = find_kernel_version(image)
    if version is None:
        return None
    return RootKernel(version, f"{MODULES}/{version}/{VMLINUZ}", unified=False)


def has_uki(image: ImageRoot) -> bool:
    """Tell whether an image has a unified kernel image, here or beside its modules."""
    homes = (UKIS, *(f"{MODULES}/{version}" for version in _names(image, MODULES)))
    return any(name.endswith(UKI_SUFFIX) for home in homes for name in _names(image, home))


def find_kernel_version(image: ImageRoot) -> str | None:
    """Return the name of the directory of ``usr/lib/modules`` that has a ``vmlinuz``, or None.

    Raises:
        SeveralKernels: several directories have one.
    """
    found = [name for name in _names(image, MODULES) if _has_kernel(image, name)]
    if len(found) > 1:
        raise SeveralKernels(
            f"Found multiple subdirectories in {MODULES}",
            hint=f"keep one of {', '.join(map(shell_quoted, found))}",
        )
    return found[0] if found else None


def _has_kernel(image: ImageRoot, version: str) -> bool:
    info = image.stat(f"{MODULES}/{version}")
    if info is None or not stat.S_ISDIR(info.st_mode):
        return False
    target = image.resolve(f"{MODULES}/{version}/{VMLINUZ}")
    return target is not None and image.stat(target) is not None


def _names(image: ImageRoot, path: str) -> list[str]:
    try:
        directory = image.open_dir(path)
    except NotADirectoryError:
        return []
    if directory is None:
        return []
    with directory:
        return directory.names()
