"""Checks whether a kernel is new enough: it must mount EROFS from a file, as Linux 6.12 does.

The check applies to the running kernel, which installs, and to the kernel of an image. The
configuration of a kernel counts more than its release, because distributions backport such
features or disable them. A kernel with neither a known release nor a configuration passes.

Source: Linux, ``fs/erofs/Kconfig``: ``EROFS_FS_BACKED_BY_FILE``.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from bootc.boot.image_content import ObjectSource, content_of, open_content
from bootc.boot.image_kernel import Kernel, UkiFile, kernel_dirs
from bootc.boot.unpacked_kernel import MODULES
from bootc.errors import Error
from bootc.formats.kernelimage import HEAD_BYTES, kernel_release
from bootc.formats.pe import LINUX, UNAME, PeError, Uki
from bootc.formats.tree import Directory, External, Inline, Leaf

FLOOR = (6, 12)
_VERSION = re.compile(r"([0-9]{1,6})\.([0-9]{1,6})")
_NEEDED = ("CONFIG_EROFS_FS", "CONFIG_EROFS_FS_BACKED_BY_FILE")
_LOCKED_DOWN = (
    "CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT",
    "CONFIG_LOCK_DOWN_KERNEL_FORCE_INTEGRITY",
    "CONFIG_LOCK_DOWN_KERNEL_FORCE_CONFIDENTIALITY",
)
#: A longer configuration of a kernel is not read.
MAX_CONFIG_BYTES = 4 << 20


class KernelTooOld(Error):
    """A kernel cannot mount the image of a deployment."""


def check_release(release: str, config: bytes | None, *, whose: str) -> None:
    """Refuse a kernel that cannot mount an EROFS image from a file.

    Args:
        release: The release as ``uname -r`` prints it.
        config: The configuration of the kernel, or None if it is unknown.
        whose: How the message names the kernel.

    Raises:
        KernelTooOld: the kernel cannot.
    """
    name = release if release.isprintable() else ascii(release)
    who = f"{whose} {name:.160}"
    values = [_option(config or b"", name) for name in _NEEDED]
    if False in values:
        missing = _NEEDED[values.index(False)]
        raise KernelTooOld(
            f"{who} is built without {missing}, and cannot mount an EROFS image",
            hint="use a kernel with this option: most kernels since Linux 6.12 have it",
        )
    found = _VERSION.match(release)
    if all(values) or found is None or (int(found[1]), int(found[2])) >= FLOOR:
        return
    raise KernelTooOld(
        f"{who} cannot mount an EROFS image from a file",
        hint="use Linux 6.12 or later, or one whose configuration has "
        f"{_NEEDED[1]} (usr/lib/modules/<version>/config)",
    )


def check_running_kernel(*, root: str = "/") -> None:
    """Refuse to install if the running kernel cannot mount the image of a deployment.

    Raises:
        KernelTooOld: it cannot.
    """
    release = os.uname().release
    check_release(release, _running_config(root, release), whose="the running kernel")


def check_image_kernel(resource: Kernel | UkiFile, root: Directory, objects: ObjectSource) -> None:
    """Refuse an image whose kernel cannot mount this image.

    Args:
        resource: The kernel of the image.
        root: The tree of the image.
        objects: Where the content of its files is.

    Raises:
        KernelTooOld: the kernel cannot.
        OSError: a file cannot be read.
    """
    for release in _releases(resource, root, objects):
        leaf = kernel_config(root, release)
        config = None
        if leaf is not None:
            with open_content(leaf, objects) as file:
                config = file.read()
        check_release(release, config, whose="the image's kernel")


def kernel_config(root: Directory, release: str) -> Leaf | None:
    """Return the file with the configuration of a kernel, or None if an image has none.

    Args:
        root: The tree of the image.
        release: The release of the kernel.
    """
    for path in (f"{MODULES}/{release}/config", f"boot/config-{release}"):
        node = root.lookup(path.encode("utf-8", "surrogateescape"))
        if not isinstance(node, Leaf) or not isinstance(node.content, Inline | External):
            continue
        if content_of(node).size_bytes <= MAX_CONFIG_BYTES:
            return node
    return None


def locks_itself_down(config: bytes) -> bool:
    """Tell whether a kernel is locked down under Secure Boot without being told by an argument.

    Source: Linux, ``security/lockdown/Kconfig``; the patch of Debian, Fedora and Ubuntu that adds
    ``CONFIG_LOCK_DOWN_IN_EFI_SECURE_BOOT``.

    Args:
        config: The configuration of the kernel.
    """
    return any(_option(config, name) for name in _LOCKED_DOWN)


def stated_releases(file: BinaryIO, *, unified: bool) -> list[str]:
    """Return the releases that a kernel states itself; empty if it states none.

    The profiles of a unified kernel image may state one each.

    Args:
        file: A ``vmlinuz`` or a unified kernel image, at its beginning.
        unified: Whether it is a unified kernel image.

    Raises:
        PeError: it is not a unified kernel image.
        OSError: reading failed.
    """
    if unified:
        uki = Uki.read(file)
        if stated := [text.strip() for text in uki.texts(UNAME)]:
            return stated
        head = b""
        for piece in uki.chunks(LINUX):
            head += piece
            if len(head) >= HEAD_BYTES:
                break
    else:
        head = file.read(HEAD_BYTES)
    release = kernel_release(head)
    return [] if release is None else [release]


def _option(config: bytes, name: str) -> bool | None:
    """Tell whether a configuration sets an option; None if it does not mention it."""
    if re.search(rf"^{name}=[ym]\s*$".encode(), config, re.MULTILINE):
        return True
    return False if f"# {name} is not set".encode() in config else None


def _running_config(root: str, release: str) -> bytes | None:
    places = (f"lib/modules/{release}/config", f"boot/config-{release}", "proc/config.gz")
    for place in places:
        with contextlib.suppress(OSError, EOFError, zlib.error):
            opened = gzip.open if place.endswith(".gz") else open
            with opened(os.path.join(root, place), "rb") as file:
                return bytes(file.read(MAX_CONFIG_BYTES))
    return None


def _releases(resource: Kernel | UkiFile, root: Directory, objects: ObjectSource) -> Iterator[str]:
    if isinstance(resource, Kernel):
        yield resource.kver
        return
    stated: list[str] = []
    with open_content(resource.leaf, objects) as file, contextlib.suppress(PeError):
        stated = stated_releases(file, unified=True)
    yield from stated
    if not stated:
        # If the image has the modules of one kernel only, they are those of this kernel.
        kvers = [kver for kver, _ in kernel_dirs(root)]
        if len(kvers) == 1:
            yield kvers[0]
