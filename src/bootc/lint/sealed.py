"""The lints of sealed images: what would protect less, or be another image for a client.

Each lint is silent unless the image has a unified kernel image (UKI) with a strict digest; the two
exceptions say so. The checks themselves are in :mod:`bootc.boot.sealed_checks`, because
``bootc container seal`` makes them too. What only the layers of an image show is in
:mod:`bootc.oci.layer_doubts`.
"""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from typing import BinaryIO

from bootc.boot import sealed_checks
from bootc.boot.esp_size import INSTALL_CONFIG, configured_esp_size_mib
from bootc.boot.image_content import open_content
from bootc.boot.image_kernel import ImageNotBootable, UkiFile, find_boot_resource
from bootc.boot.kargs import KARGS_D, KargsError, read_kargs_d
from bootc.boot.kernel_release import stated_releases
from bootc.boot.scheme import UKI_SUFFIX
from bootc.boot.uki import is_sealed
from bootc.boot.unpacked_kernel import MODULES, UKIS
from bootc.formats.cmdline import CmdlineError
from bootc.formats.initramfs import InitramfsError
from bootc.formats.pe import INITRD, PeError, Uki
from bootc.formats.shellquote import shell_quoted
from bootc.formats.tree import Leaf
from bootc.fs.imageroot import ImageRoot
from bootc.fs.outline import Outline
from bootc.fs.visit import Visited, visit
from bootc.lint.dropins import drop_ins
from bootc.lint.model import LintFinding, Listing, lists

#: What the digest leaves out.
_UNMEASURED = ("boot", "sysroot", "run")
#: It gets the time of /usr.
_TIMED_BY_USR = "/run"
_WHITEOUT = ".wh."
#: More names are not listed.
_MOST = 10_000
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class _Image:
    """An unpacked image with a UKI."""

    outline: Outline
    uki: UkiFile

    def open_file(self, leaf: Leaf) -> AbstractContextManager[BinaryIO]:
        """Open a file of the image."""
        return open_content(leaf, self.outline)

    def lines(self) -> list[list[str]]:
        """Return the arguments of each command line."""
        return sealed_checks.command_lines(self.uki, self.open_file)


def kargs(root: ImageRoot) -> LintFinding | None:
    """Find arguments of ``kargs.d`` that the UKI of a sealed image does not have."""
    image = _sealed(root)
    if image is None:
        return None
    try:
        outline = image.outline
        wanted = read_kargs_d(outline.root, outline.read_content, os.uname().machine)
    except KargsError:
        return None  # an installation refuses them, so pybootc-installable reports it
    missing = sealed_checks.missing_arguments(image.lines(), wanted)
    return lists(
        Listing(
            "Found kernel arguments in /usr/lib/bootc/kargs.d that the command line of the unified "
            "kernel image lacks, so no machine gets them; build it again with bootc container "
            "ukify or seal",
            [shell_quoted(one) for one in missing],
        )
    )


def lockdown(root: ImageRoot) -> LintFinding | None:
    """Find a sealed image whose kernel root can change while it runs."""
    image = _sealed(root)
    if image is None:
        return None
    releases: list[str] = []
    # pybootc-installable reports a UKI without a kernel.
    with image.open_file(image.uki.leaf) as file, suppress(PeError):
        releases = stated_releases(file, unified=True)
    found = sealed_checks.lacks_lockdown(
        image.lines(), image.outline.root, releases, image.open_file
    )
    return sealed_checks.NO_LOCKDOWN if found else None


def panic(root: ImageRoot) -> LintFinding | None:
    """Find a sealed image whose initramfs opens a shell if the boot fails."""
    image = _sealed(root)
    if image is None:
        return None
    with image.open_file(image.uki.leaf) as file:
        try:
            pieces = Uki.read(file).chunks(INITRD)
            found = sealed_checks.lacks_panic(image.lines(), lambda size: next(pieces, b""))
        except (PeError, InitramfsError):
            return None  # pybootc-installable and pybootc-initramfs report it
    return sealed_checks.NO_PANIC if found else None


def raw_kernel(root: ImageRoot) -> LintFinding | None:
    """Find kernels beside the UKI of a sealed image."""
    image = _sealed(root)
    if image is None:
        return None
    found = sealed_checks.raw_kernels(image.outline.root)
    return lists(
        Listing(
            "Found kernels beside the unified kernel image, which other programs may boot without "
            "the seal; remove them from the image",
            [shell_quoted(path) for path in found],
        )
    )


def signatures(root: ImageRoot) -> LintFinding | None:
    """Find EFI programs without a signature, if the image is sealed or its UKI is signed."""
    image = _with_uki(root)
    if image is None:
        return None
    strict = _is_strict(image)
    if not strict and not sealed_checks.has_signature(image.uki.leaf, image.open_file):
        return None
    found = sealed_checks.unsigned_programs(image.outline.root, image.uki, image.open_file)
    return lists(
        Listing(
            "Found EFI programs without a signature, which firmware with Secure Boot does not "
            "start; sign them",
            [shell_quoted(path) for path in found],
        )
    )


def esp_size(root: ImageRoot) -> LintFinding | None:
    """Find a UKI that does not fit twice on the ESP, whether the image is sealed or not."""
    image = _with_uki(root)
    if image is None:
        return None
    configured = configured_esp_size_mib(drop_ins(root, INSTALL_CONFIG, suffix=".toml"))
    uki_bytes = sum(image.uki.sizes.values())
    return sealed_checks.esp_too_small(image.outline.root, uki_bytes, configured)


def layers(root: ImageRoot) -> LintFinding | None:
    """Find what the digest of a sealed image depends on, and a layer cannot carry."""
    if _sealed(root) is None:
        return None
    lost: list[str] = []
    with closing(visit(root.dir, lambda path: path not in _UNMEASURED)) as walk:
        newest = heapq.nlargest(_MOST, _fractions(walk, lost))
    return lists(
        Listing(
            "Found names and files that a layer cannot carry, so the image gets another digest; "
            "remove them",
            lost,
        ),
        Listing(
            "Found times with fractions of a second. podman, buildah and docker write whole "
            "seconds into layers, and the image gets another digest; compute the digest from the "
            "finished image, or set whole seconds",
            [shell_quoted(path) for _, path in newest],
        ),
    )


def _fractions(walk: Iterator[Visited], lost: list[str]) -> Iterator[tuple[int, str]]:
    """Yield time and path of each file whose time is no whole second; collect other losses."""
    for visited in walk:
        path = f"/{visited.path}"
        try:
            info = visited.entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # Another process has just removed it.
        why = _unlayered(visited.entry.name, info)
        if why is not None and len(lost) < _MOST:
            lost.append(f"{shell_quoted(path)} ({why})")
        if info.st_mtime_ns % _NS_PER_S and path != _TIMED_BY_USR:
            yield info.st_mtime_ns, path


def _unlayered(name: str, info: os.stat_result) -> str | None:
    """Return why a layer cannot carry a file, or None if it can."""
    if name.startswith(_WHITEOUT):
        return "the name removes another file"
    if stat.S_ISSOCK(info.st_mode):
        return "a socket"
    if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
        return "a device that removes a file"
    return None


def _sealed(root: ImageRoot) -> _Image | None:
    """Return an image if it is sealed.

    What is wrong with its command lines is for ``pybootc-installable`` to say.
    """
    image = _with_uki(root)
    return image if image is not None and _is_strict(image) else None


def _is_strict(image: _Image) -> bool:
    try:
        with image.open_file(image.uki.leaf) as file:
            return is_sealed(Uki.read(file).composefs_images())
    except (PeError, CmdlineError):
        return False


def _with_uki(root: ImageRoot) -> _Image | None:
    # Most images have none, and the modules of their kernel are many files.
    homes = (UKIS, *(f"{MODULES}/{kver}" for kver in _names(root, MODULES)))
    if not any(name.endswith(UKI_SUFFIX) for home in homes for name in _names(root, home)):
        return None
    outline = Outline.read(root, ("boot", MODULES, KARGS_D, sealed_checks.LOADERS))
    try:
        resource = find_boot_resource(outline.root)
    except ImageNotBootable:
        return None
    return _Image(outline, resource) if isinstance(resource, UkiFile) else None


def _names(root: ImageRoot, path: str) -> list[str]:
    try:
        directory = root.open_dir(path)
    except NotADirectoryError:
        return []
    if directory is None:
        return []
    with directory:
        return list(directory.names())
