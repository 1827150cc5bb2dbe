"""Checks that a unified kernel image (UKI) boots its deployment.

The command line inside a UKI names the image, and the signature covers it. It can name several:
one tree in several versions of the image format (:class:`bootc.formats.cmdline.ComposefsImages`).
A UKI that names another image would boot another deployment, whatever the menu says. bootc
refuses it before anything refers to it. :func:`inspect_uki` reads the names; the caller compares
them with the images that it can make of the container (:mod:`bootc.deploy.sealing`).
:mod:`bootc.boot.kernels` writes UKIs to the ESP.

The add-ons of a UKI are in a directory beside it, and those of all UKIs in ``loader/addons``. The
stub of the UKI appends their command lines to its own. Therefore bootc also refuses an add-on that
names an image.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

from bootc.boot.image_content import ObjectSource, open_content, size_of
from bootc.boot.image_kernel import UkiFile
from bootc.boot.scheme import ADDON_SUFFIX, GLOBAL_ADDONS, BootDirs, addons_dirs
from bootc.errors import Error, doing
from bootc.formats import cmdline, security_version
from bootc.formats.cmdline import NO_IMAGE, CmdlineError, ComposefsImages, NoImageNamed
from bootc.formats.digest import Digest
from bootc.formats.osrelease import OsRelease
from bootc.formats.pe import CMDLINE, DTB, INITRD, LINUX, PeError, Uki
from bootc.formats.security_version import SecurityVersion

if TYPE_CHECKING:
    from bootc.formats.tree import Leaf

#: A UKI is read into memory if there is no repository. With its initramfs it is smaller.
MAX_UKI_BYTES = 512 << 20
_CONTROL = re.compile(r"[\x00-\x1f]")


class WrongUki(Error):
    """A unified kernel image does not boot the deployment that it came with."""


@dataclass(frozen=True, slots=True)
class UkiFacts:
    """Facts of a unified kernel image.

    Attributes:
        os_release: Its os-release.
        options: The kernel command line; with profiles, that of the base.
        boot_digest: The SHA-256 of kernel, initramfs and device tree, in hex.
        images: The images that the command lines name, and whether they tolerate missing
            fs-verity. Nothing has compared them with images that exist.
        version: The security version that all command lines state.
    """

    os_release: OsRelease
    options: str
    boot_digest: str
    images: ComposefsImages
    version: SecurityVersion

    @property
    def sealed(self) -> bool:
        """Whether the image is sealed."""
        return is_sealed(self.images)


@dataclass(frozen=True, slots=True)
class InstalledUki:
    """Facts of a unified kernel image on the ESP.

    Attributes:
        images: The images that its command lines name.
        version: The security version that they state. If they differ, the one that protects least.
    """

    images: ComposefsImages
    version: SecurityVersion


def is_sealed(images: ComposefsImages) -> bool:
    """Tell whether a UKI that names these images is sealed: no digest has a ``?``.

    This is the definition for all of bootc (``docs/reference/sealed-images.md``).
    """
    return not images.optional


def inspect_uki(uki: UkiFile, objects: ObjectSource) -> UkiFacts:
    """Read a unified kernel image in the repository, with all its profiles and add-ons.

    Raises:
        WrongUki: profiles name different images or no image, or state different security versions
            or a malformed one, or an add-on names an image.
        PeError: it is not a unified kernel image.
        OSError: reading failed.
    """
    with doing(f"Reading {uki.path} of the image"), open_content(uki.leaf, objects) as file:
        image = Uki.read(file)
        options = image.text(CMDLINE)
        images = _images(image)
        version = _version(image)
        facts = UkiFacts(image.os_release(), options, image.boot_digest(), images, version)
    _check_addons(uki, lambda leaf: open_content(leaf, objects))
    return facts


def uki_faults(uki: UkiFile, objects: ObjectSource) -> list[Error]:
    """Return everything in a UKI for which :func:`inspect_uki` would refuse it, in its order.

    Raises:
        OSError: reading failed.
    """
    found: dict[str, Error] = {}

    def note(check: Callable[[], object], what: str) -> None:
        try:
            with doing(what):
                check()
        except (WrongUki, PeError) as exc:
            found.setdefault(exc.message, exc)

    def note_all(file: BinaryIO, what: str) -> None:
        image = Uki.read(file)
        note(partial(image.text, CMDLINE), what)
        note(partial(_images, image), what)
        note(partial(_version, image), what)
        note(image.os_release, what)
        for name in (LINUX, INITRD, *([DTB] if DTB in image.sections else [])):
            note(partial(_read_through, image, name), what)

    what = f"Reading {uki.path} of the image"
    with open_content(uki.leaf, objects) as file:
        note(partial(note_all, file, what), what)
    for name, leaf in uki.addon_files:
        with open_content(leaf, objects) as file:
            note(partial(_check_addon, file), f"Reading UKI add-on {name} of the image")
    return list(found.values())


def doubled_sections(uki: UkiFile, objects: ObjectSource) -> list[PeError]:
    """Return an error for each section that a UKI has more than once where one is expected.

    bootc installs such a UKI, as upstream does: both take the first, and every command line counts.

    Raises:
        OSError: reading failed.
    """
    with open_content(uki.leaf, objects) as file:
        try:
            return Uki.read(file).doubled()
        except PeError:
            return []  # nothing boots it, and inspect_uki refuses it


def check_installed_uki(dirs: BootDirs, deployment: Digest, path: str) -> InstalledUki:
    """Ensure that an installed UKI boots ``deployment``, and return its facts.

    Another program may have written the UKI.

    Args:
        dirs: The boot partition.
        deployment: The deployment that its menu entry stands for.
        path: The path of the UKI as entries write it.

    Raises:
        WrongUki: a profile boots something else, or an add-on names an image.
        PeError: it is not a unified kernel image.
        OSError: reading failed.
    """
    relpath = path.lstrip("/")
    with open_installed(dirs, relpath) as file:
        uki = Uki.read(file)
        images = _images(uki)
        stated = [security_version.stated(cmdline.parse(text)) for text in uki.texts(CMDLINE)]
    check_names(images, deployment)
    for home in (*addons_dirs(relpath), GLOBAL_ADDONS):
        _check_installed_addons(dirs, home)
    weakest = SecurityVersion(
        min(each.version for each in stated),
        min(each.minimum for each in stated),
        stated=any(each.stated for each in stated),
    )
    return InstalledUki(images, weakest)


def check_names(
    images: ComposefsImages,
    deployment: Digest,
    *,
    hint: str = "build the image again: it was changed after its kernel image was made",
) -> None:
    """Ensure that a deployment is among the images that a UKI names.

    Args:
        images: The images that it names.
        deployment: The deployment.
        hint: The way out, if the caller knows more of the image.

    Raises:
        WrongUki: it is not.
    """
    if deployment.hex not in images.hexes:
        raise WrongUki(
            "The UKI has the wrong composefs= parameter "
            f"(is '{images.deployment}', should be '{deployment.hex}')",
            hint=hint,
        )


def _check_installed_addons(dirs: BootDirs, home: str) -> None:
    try:
        with dirs.binaries.open_dir(home) as directory:
            # FAT ignores the case of letters, and so does the stub.
            names = [name for name in directory.names() if name.lower().endswith(ADDON_SUFFIX)]
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        with doing(f"UKI add-on {name!a}"), open_installed(dirs, f"{home}/{name}") as file:
            _check_addon(file)


def open_installed(dirs: BootDirs, relpath: str) -> BinaryIO:
    """Open a unified kernel image or an add-on, also one in a partition of ukiboot.

    Raises:
        OSError: it cannot be opened.
    """
    if dirs.slots is not None:
        from bootc.boot.slots import program_path

        node = program_path(dirs.slots, relpath)
        if node is not None:
            return open(node, "rb")
    return open(dirs.binaries.open_regular(relpath), "rb")


def check_sealing(
    uki: UkiFile, open_file: Callable[[Leaf], AbstractContextManager[BinaryIO]]
) -> None:
    """Refuse a unified kernel image if not all its profiles name the same images.

    A UKI whose profiles name no image passes. The image ids themselves are not checked: a build
    computes them before it makes the UKI.

    Raises:
        WrongUki: only some profiles name an image, they name different images, only some
            arguments tolerate missing fs-verity, an add-on names an image, or a file is too
            large for a UKI.
        PeError: a command line cannot be read.
    """
    for name, leaf in ((uki.path, uki.leaf), *uki.addon_files):
        if size_of(leaf) > MAX_UKI_BYTES:
            raise WrongUki(f"{name} of the image is too large: it has {size_of(leaf)} bytes")
    with doing(f"Reading {uki.path} of the image"), open_file(uki.leaf) as file:
        try:
            image = Uki.read(file)
        except PeError:
            return  # Nothing boots it, and bootc checks a UKI again when it installs it.
        words = (word for line in image.texts(CMDLINE) for word in cmdline.parse(line))
        if any(cmdline.names_image(word) for word in words):
            _images(image)
    _check_addons(uki, open_file)


def _images(image: Uki) -> ComposefsImages:
    try:
        return image.composefs_images()
    except NoImageNamed as exc:
        text = exc.message.replace(NO_IMAGE, "No composefs image in UKI cmdline")
        raise WrongUki(text, hint=exc.hint) from None
    except CmdlineError as exc:
        raise WrongUki(f"No composefs image in UKI cmdline: {exc.message}", hint=exc.hint) from None


def _version(image: Uki) -> SecurityVersion:
    """Return what all command lines of a UKI state.

    Raises:
        WrongUki: one is malformed, or states something else.
    """
    try:
        found = {security_version.check(cmdline.parse(text)) for text in image.texts(CMDLINE)}
    except CmdlineError as exc:
        raise WrongUki(f"UKI cmdline: {exc.message}", hint=exc.hint) from None
    if len(found) > 1:
        raise WrongUki(
            "the command lines of the UKI state different security versions",
            hint=f"give all profiles the same {security_version.VERSION}",
        )
    # Without a command line it states nothing; others report that.
    return found.pop() if found else security_version.check([])


def _read_through(image: Uki, name: str) -> None:
    for _ in image.chunks(name):
        pass


def _check_addons(
    uki: UkiFile, open_file: Callable[[Leaf], AbstractContextManager[BinaryIO]]
) -> None:
    for name, leaf in uki.addon_files:
        with doing(f"Reading UKI add-on {name} of the image"), open_file(leaf) as file:
            _check_addon(file)


def _check_addon(file: BinaryIO) -> None:
    try:
        addon = Uki.read(file)
    except PeError:
        return  # The firmware does not load it either, and the stub continues without it.
    for text in addon.texts(CMDLINE):
        check_addon_text(shown_arguments(text))


def shown_arguments(text: str) -> str:
    """Return the text of an add-on as the stub appends it: blanks replace control characters."""
    return _CONTROL.sub(" ", text)


def check_addon_text(text: str) -> None:
    """Refuse kernel arguments of an add-on that name an image.

    Raises:
        WrongUki: they name one, or cannot be appended to a command line.
    """
    try:
        cmdline.check(text)
        security_version.check_addon(cmdline.parse(text))
    except CmdlineError as exc:
        raise WrongUki(exc.message, hint=exc.hint or "only the UKI may name the image") from None
