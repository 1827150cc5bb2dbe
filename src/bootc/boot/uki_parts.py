"""Takes a unified kernel image apart, so that a Type #1 entry boots its kernel.

Boot loaders that cannot start a unified kernel image (UKI) start its parts: kernel, initramfs,
microcode and device tree become files, and the command lines of the UKI and its add-ons become
the arguments of the entry. No signature covers any of them then. Therefore the user has to ask
for it (``--boot-type bls``), and a UKI that demands fs-verity is taken apart only if the user
gives up its seal (``--disable-sealing``).

The parts are those that systemd-stub uses when a UKI starts by default. A UKI that needs
something else of the stub is refused. Source: systemd, ``src/boot/stub.c``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bootc.boot.image_content import ObjectSource, checked_chunks, open_content
from bootc.boot.image_kernel import UkiFile
from bootc.boot.scheme import DEVICETREE, INITRD, MICROCODE, VMLINUZ
from bootc.errors import Error, doing
from bootc.formats import cmdline, pe
from bootc.formats.origin import TakesApart
from bootc.formats.pe import PeError, Uki

#: The files of a kernel by their sections, in the order of the boot digest. Without microcode it
#: is the digest of the UKI itself.
_SECTIONS = {VMLINUZ: pe.LINUX, INITRD: pe.INITRD, DEVICETREE: pe.DTB, MICROCODE: pe.UCODE}
#: The files that every kernel has.
_REQUIRED = (VMLINUZ, INITRD)
#: Sections from which the stub chooses by the hardware. An entry cannot do that.
_BY_HARDWARE = (".dtbauto", ".efifw")
#: Sections of an add-on beside its arguments.
_OF_ADDONS = (pe.INITRD, pe.DTB, pe.UCODE, *_BY_HARDWARE)
#: The stub replaces these by blanks.
_CONTROL = re.compile(r"[\x00-\x1f]")


class CannotTakeApart(Error):
    """A Type #1 entry cannot do what a unified kernel image does, or must not.

    The hint is that for an installation, which can boot the image whole.

    Args:
        message: What the image has.
        remedy: How to build an image that can be taken apart.
        choice: What the user can do with this image.
    """

    def __init__(self, message: str, *, remedy: str, choice: str = "boot it whole") -> None:
        super().__init__(message, hint=f"{remedy}, or {choice}")
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class UkiParts:
    """A unified kernel image that boots in parts.

    Attributes:
        uki: The image, with the add-ons whose arguments are used.
        sizes: The size in bytes of each file that bootc will write.
        arguments: The kernel arguments of the image and its add-ons, except those that name an
            image to boot.
    """

    uki: UkiFile
    sizes: Mapping[str, int]
    arguments: tuple[str, ...]

    def contents(self, objects: ObjectSource) -> Iterator[tuple[str, Iterator[bytes]]]:
        """Yield name and content of each file, in the order of the boot digest.

        Raises:
            DamagedKernel: the stored image is damaged; before any content is returned.
            PeError, OSError: reading failed.
        """
        for _ in checked_chunks(self.uki.leaf, objects, self.uki.path):
            pass
        with open_content(self.uki.leaf, objects) as file:
            image = Uki.read(file).first_profile()
            for name in self.sizes:
                yield name, image.chunks(_SECTIONS[name])


def take_apart(
    uki: UkiFile, objects: ObjectSource, takes_apart: TakesApart, *, sealed: bool
) -> UkiParts:
    """Take a unified kernel image apart that :func:`~bootc.boot.uki.inspect_uki` accepts.

    Args:
        uki: The image with the add-ons to use.
        objects: Where its content is.
        takes_apart: Which images the user wants taken apart.
        sealed: Whether it demands fs-verity.

    Raises:
        CannotTakeApart: it is sealed, or has something that an entry cannot have.
        PeError, CmdlineError: it is malformed.
        OSError: reading failed.
    """
    check_seal(takes_apart, sealed=sealed)
    with doing(f"Reading {uki.path} of the image"), open_content(uki.leaf, objects) as file:
        image = Uki.read(file)
        _check_sections(image)
        started = image.first_profile()
        names = [name for name in _SECTIONS if _is_part(started, name)]
        for name in names:
            started.chunks(_SECTIONS[name])  # It fails here, before anything is written.
        sizes = {name: started.sections[_SECTIONS[name]].size_bytes for name in names}
        words = _words(started.text(pe.CMDLINE))
        release = started.text(pe.UNAME) if pe.UNAME in started.sections else None
    # The stub appends the global add-ons first, each kind by name.
    addons = [*sorted(uki.global_addons.items()), *sorted(uki.addons.items())]
    for name, leaf in addons:
        with doing(f"Reading UKI add-on {name} of the image"), open_content(leaf, objects) as file:
            words += _addon_words(file, release)
    return UkiParts(uki, sizes, tuple(word for word in words if not cmdline.names_image(word)))


def check_seal(takes_apart: TakesApart, *, sealed: bool) -> None:
    """Refuse to take a sealed image apart, unless the user gave up the seal.

    Raises:
        CannotTakeApart: the image is sealed.
    """
    if sealed and takes_apart is not TakesApart.ALL:
        raise CannotTakeApart(
            "the image's UKI is sealed: it demands fs-verity, and in parts no signature covers it",
            remedy="build the image with composefs=? in the UKI's command line",
            choice="boot it whole; or give up the seal: bootc install to-disk --boot-type bls "
            "--disable-sealing",
        )


def _is_part(image: Uki, name: str) -> bool:
    if name in _REQUIRED:
        return True
    section = image.sections.get(_SECTIONS[name])
    return section is not None and section.size_bytes > 0


def _check_sections(image: Uki) -> None:
    for error in image.doubled():
        raise error
    if image.profile_count > 1:
        raise CannotTakeApart(
            f"the image's UKI has {image.profile_count} profiles, and in parts only the first "
            "would boot",
            remedy="build the UKI with one profile",
        )
    for name in _BY_HARDWARE:
        if name in image.sections:
            raise CannotTakeApart(
                f"the image's UKI has a section {name!r}, from which systemd-stub chooses by the "
                "hardware; a boot entry cannot choose",
                remedy="build the UKI without it",
            )


def _addon_words(file: pe.SeekableFile, release: str | None) -> list[str]:
    try:
        addon = Uki.read(file)
    except PeError:
        return []  # The firmware does not load it, and the stub continues without it.
    if release is not None and pe.UNAME in addon.sections and addon.text(pe.UNAME) != release:
        return []  # The stub ignores add-ons for another kernel.
    for name in _OF_ADDONS:
        if name in addon.sections:
            raise CannotTakeApart(
                f"it has a section {name!r}; a UKI that is taken apart gets only the kernel "
                "arguments of an add-on",
                remedy="leave the add-on out",
                choice="boot the UKI whole",
            )
    return [word for text in addon.texts(pe.CMDLINE) for word in _words(text)]


def _words(text: str) -> list[str]:
    line = _CONTROL.sub(" ", text)
    cmdline.check_text(line)
    return cmdline.parse(line)
