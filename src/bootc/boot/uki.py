"""Unified kernel images of deployments: checking one, and writing it to the ESP.

The image id is in the command line inside of the image, where a signature covers it. One
that names another deployment would boot that, whatever the menu says, and is refused
before anything refers to it.

What the firmware stub adds to an image, its add-ons, lies in a directory beside it. An
image has no more and no other add-ons than were chosen for it. The stub appends their command
lines, so that one which names an image could boot that image, and is refused.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from bootc.boot.image_content import ObjectSource, open_content, size_of
from bootc.boot.image_kernel import UkiFile
from bootc.boot.scheme import ADDON_SUFFIX, BootDirs, addons_dir
from bootc.errors import Error, doing
from bootc.formats import cmdline
from bootc.formats.cmdline import CmdlineError, ComposefsArgument
from bootc.formats.digest import Digest
from bootc.formats.osrelease import OsRelease
from bootc.formats.pe import CMDLINE, PeError, Uki

if TYPE_CHECKING:
    from bootc.formats.tree import Leaf

#: Read whole where nothing is stored; a kernel image with its initramfs has less.
MAX_UKI_BYTES = 512 << 20
_IMAGE_KEYS = (cmdline.COMPOSEFS, cmdline.COMPOSEFS_DIGEST)
_CONTROL = re.compile(r"[\x00-\x1f]")


class WrongUki(Error):
    """A unified kernel image does not boot the deployment it came with."""


@dataclass(frozen=True, slots=True)
class UkiFacts:
    """What a unified kernel image says.

    Attributes:
        os_release: Who the operating system is.
        options: The kernel command line, that of the base where there are profiles.
        boot_digest: SHA-256 in hex over kernel and initramfs.
        missing_verity_allowed: Whether the command line tolerates missing fs-verity.
    """

    os_release: OsRelease
    options: str
    boot_digest: str
    missing_verity_allowed: bool


def inspect_uki(deployment: Digest, uki: UkiFile, objects: ObjectSource) -> UkiFacts:
    """Read a unified kernel image of the repository, and make sure it boots ``deployment``.

    All its profiles are looked at, and all its add-ons.

    Raises:
        WrongUki: it boots another one, or none; or an add-on has a say in that.
        PeError: it is no unified kernel image.
        OSError: it cannot be read.
    """
    with doing(f"Reading {uki.path} of the image"), open_content(uki.leaf, objects) as file:
        image = Uki.read(file)
        options = image.text(CMDLINE)
        argument = _check_boots(image, deployment)
        facts = UkiFacts(image.os_release(), options, image.boot_digest(), argument.optional)
    _check_addons(uki, lambda leaf: open_content(leaf, objects))
    return facts


def check_installed_uki(dirs: BootDirs, deployment: Digest, path: str) -> ComposefsArgument:
    """Make sure that a UKI on the ESP boots ``deployment``, whoever wrote it, and return how.

    Args:
        dirs: Where it is.
        deployment: What its menu entry is taken for.
        path: Of the file, as entries write it.

    Raises:
        WrongUki: a profile of it boots something else, or an add-on has a say in that.
        PeError: it is not a unified kernel image.
        OSError: it cannot be read.
    """
    relpath = path.lstrip("/")
    with _open_installed(dirs, relpath) as file:
        argument = _check_boots(Uki.read(file), deployment)
    home, _, name = relpath.rpartition("/")
    extra = f"{home}/{addons_dir(name)}"
    try:
        with dirs.binaries.open_dir(extra) as directory:
            names = [name for name in directory.names() if name.endswith(ADDON_SUFFIX)]
    except (FileNotFoundError, NotADirectoryError):
        return argument
    for name in names:
        with doing(f"UKI add-on {name!a}"), _open_installed(dirs, f"{extra}/{name}") as file:
            _check_addon(file)
    return argument


def _open_installed(dirs: BootDirs, relpath: str) -> BinaryIO:
    # A FIFO in its place must not hang whoever looks.
    return open(dirs.binaries.open_file(relpath, os.O_RDONLY | os.O_NONBLOCK), "rb")


def check_sealing(
    uki: UkiFile, open_file: Callable[[Leaf], AbstractContextManager[BinaryIO]]
) -> None:
    """Refuse a unified kernel image that names an image in one profile and not in another.

    Which image is not looked at: whoever builds an image computes its id before the kernel
    image is made that names it.

    Raises:
        WrongUki: it does, its profiles name different images, or an add-on names one; or it is
            too large to be one.
        PeError: it cannot be read as far as that.
    """
    for name, leaf in {uki.path: uki.leaf, **uki.addons}.items():
        if size_of(leaf) > MAX_UKI_BYTES:
            raise WrongUki(f"{name} of the image is too large: it has {size_of(leaf)} bytes")
    with doing(f"Reading {uki.path} of the image"), open_file(uki.leaf) as file:
        try:
            image = Uki.read(file)
        except PeError:
            return  # Nothing boots it. What is installed is looked at again.
        words = (word for line in image.texts(CMDLINE) for word in cmdline.parse(line))
        if any(cmdline.key_of(word) in _IMAGE_KEYS for word in words):
            _argument(image)
    _check_addons(uki, open_file)


def _check_boots(image: Uki, deployment: Digest) -> ComposefsArgument:
    argument = _argument(image)
    if argument.hex != deployment.hex:
        raise WrongUki(
            "The UKI has the wrong composefs= parameter "
            f"(is '{argument.hex}', should be '{deployment.hex}')",
            hint="build the image again: it was changed after its kernel image was made",
        )
    return argument


def _argument(image: Uki) -> ComposefsArgument:
    try:
        return image.composefs_argument()
    except CmdlineError as exc:
        raise WrongUki(f"No composefs image in UKI cmdline: {exc.message}", hint=exc.hint) from None


def _check_addons(
    uki: UkiFile, open_file: Callable[[Leaf], AbstractContextManager[BinaryIO]]
) -> None:
    for name, leaf in uki.addons.items():
        with doing(f"Reading UKI add-on {name} of the image"), open_file(leaf) as file:
            _check_addon(file)


def _check_addon(file: BinaryIO) -> None:
    try:
        addon = Uki.read(file)
    except PeError:
        return  # The firmware does not load it either, and the stub goes on without.
    for text in addon.texts(CMDLINE):
        _check_addon_text(text)


def _check_addon_text(text: str) -> None:
    try:
        # The stub makes blanks of control characters before it appends the text.
        cmdline.check(_CONTROL.sub(" ", text))
    except CmdlineError as exc:
        raise WrongUki(exc.message, hint=exc.hint or "which image boots is for the UKI") from None
