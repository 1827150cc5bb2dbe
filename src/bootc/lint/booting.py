"""Lints of the files that an image boots with.

The lints find the kernel by the rules of an installation (:mod:`bootc.boot.image_kernel`). If
these rules refuse the image, :func:`installable` says why and the other lints say nothing. An
image without a kernel is not an error: a later build may add the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from bootc.boot.image_content import open_content
from bootc.boot.image_kernel import (
    ImageNotBootable,
    Kernel,
    UkiFile,
    find_boot_resource,
    find_ukis,
    kernel_dirs,
)
from bootc.boot.kargs import KARGS_D, KargsError, read_kargs_d
from bootc.boot.kernel_release import (
    MAX_CONFIG_BYTES,
    KernelTooOld,
    check_image_kernel,
    check_release,
    stated_releases,
)
from bootc.boot.scheme import VMLINUZ
from bootc.boot.uki import doubled_sections, uki_faults
from bootc.boot.unpacked_kernel import INITRAMFS, MODULES
from bootc.errors import Error
from bootc.formats.initramfs import initramfs_names
from bootc.formats.kernelimage import HEAD_BYTES, is_kernel
from bootc.formats.pe import INITRD, LINUX, PeError, Uki
from bootc.formats.shellquote import shell_quoted
from bootc.fs.imageroot import ImageRoot
from bootc.fs.outline import Outline
from bootc.lint.model import LintFinding, Listing, lists
from bootc.printable import printable

#: What mounts the image at boot. Upstream's program and bootc's step have the same name.
_STEP = b"usr/lib/bootc/initramfs-setup"


def installable(root: ImageRoot) -> LintFinding | None:
    """Find what an installation would refuse, and what readers of a UKI disagree about."""
    outline = Outline.read(root, ("boot", MODULES, KARGS_D))
    reasons: list[str] = []
    doubled: list[str] = []
    try:
        read_kargs_d(outline.root, outline.read_content, os.uname().machine)
    except KargsError as exc:
        reasons.append(_sentence(exc))
    try:
        if _has_kernel(outline):
            find_boot_resource(outline.root)
    except ImageNotBootable as exc:
        reasons.append(_sentence(exc))
    for uki in _ukis(outline):
        reasons += map(_sentence, uki_faults(uki, outline))
        doubled += [f"{printable(uki.path)}: {e.message}" for e in doubled_sections(uki, outline)]
    return lists(
        # Several UKIs share their add-ons.
        Listing("Found what bootc install will refuse", list(dict.fromkeys(reasons))),
        Listing("Found sections that a unified kernel image has more than once", doubled),
    )


def kernel_version(root: ImageRoot) -> LintFinding | None:
    """Find a file that is not a kernel image, or a kernel that is too old to mount the image."""
    outline, resource = _boot_resource(root)
    try:
        if isinstance(resource, Kernel):
            path = f"{MODULES}/{resource.kver}/{VMLINUZ}"
            with open_content(resource.vmlinuz, outline) as file:
                if not is_kernel(file.read(HEAD_BYTES)):
                    return f"Found no kernel image in {shell_quoted(path)}"
                file.seek(0)
                releases = stated_releases(file, unified=False)
            # The kernel can state another release than the name of its directory.
            config = root.read(f"{MODULES}/{resource.kver}/config", MAX_CONFIG_BYTES)
            for release in releases:
                check_release(release, config, whose="the image's kernel")
        elif isinstance(resource, UkiFile):
            with open_content(resource.leaf, outline) as file:
                if not is_kernel(next(Uki.read(file).chunks(LINUX), b"")):
                    path = shell_quoted(resource.path)
                    return f"Found no kernel image in section {LINUX} of {path}"
        if resource is not None:
            check_image_kernel(resource, outline.root, outline)
    except KernelTooOld as exc:
        return _sentence(exc)
    except PeError:
        return None  # an installation refuses the UKI, so installable() reports it
    return None


def initramfs(root: ImageRoot) -> LintFinding | None:
    """Find an initramfs that does not mount the image."""
    outline, resource = _boot_resource(root)
    if resource is None:
        return None
    if isinstance(resource, Kernel):
        path = f"{MODULES}/{resource.kver}/{INITRAMFS}"
        with open_content(resource.initramfs, outline) as file:
            found = _has_step(file.read)
    else:
        path = resource.path
        with open_content(resource.leaf, outline) as file:
            try:
                pieces = Uki.read(file).chunks(INITRD)
            except PeError:
                return None  # an installation refuses the UKI, so installable() reports it
            found = _has_step(lambda size: next(pieces, b""))
    if found:
        return None
    return (
        f"Found no {_STEP.decode()} in the initramfs of {shell_quoted(path)}, so it does "
        "not mount the image; dracut's module bootc adds the file"
    )


def _has_step(read: Callable[[int], bytes]) -> bool:
    return any(name == _STEP for name in initramfs_names(read))


def _boot_resource(root: ImageRoot) -> tuple[Outline, Kernel | UkiFile | None]:
    """Return what an installation would boot, or None if it would refuse the image."""
    outline = Outline.read(root, ("boot", MODULES))
    try:
        return outline, find_boot_resource(outline.root)
    except ImageNotBootable:
        return outline, None


def _ukis(outline: Outline) -> list[UkiFile]:
    try:
        return find_ukis(outline.root)
    except ImageNotBootable:
        return []  # find_boot_resource says why


def _has_kernel(outline: Outline) -> bool:
    found = any(VMLINUZ.encode() in modules.entries for _, modules in kernel_dirs(outline.root))
    return found or bool(find_ukis(outline.root))


def _sentence(exc: Error) -> str:
    """Return the context, the message and the hint of an error as text for a build log."""
    text = ": ".join([*reversed(getattr(exc, "__notes__", ())), exc.message])
    return printable(text if exc.hint is None else f"{text} ({exc.hint})")
